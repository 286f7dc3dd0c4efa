"""Reference clips: read, shown, compared, and made into predictions."""
