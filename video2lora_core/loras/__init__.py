"""LoRAs: their shared matrices, what is predicted for a reference, and what it does where."""
