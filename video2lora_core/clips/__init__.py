"""Clips: decoded, cut to frames by time, fitted to a size, written as pictures."""
