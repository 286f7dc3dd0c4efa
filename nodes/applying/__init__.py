"""Nodes that apply adaptive LoRAs to a model or to its sampling."""
