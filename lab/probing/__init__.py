"""Measurements on the way from a reference to a LoRA: what predictions say, before anything is sampled."""
