"""How a LoRA gets onto a MODEL: merged, beside the weights, scheduled."""
