"""Nodes that take adaptive LoRAs and give them: saved, exported, blended, inspected, refined."""
