"""Nodes that load models."""
