"""What ComfyUI loads: checkpoints, motion modules, and the layers in them."""
