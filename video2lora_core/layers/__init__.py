"""Layers of a backbone: which are adapted, in which order, and low-rank branches beside them."""
