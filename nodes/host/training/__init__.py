"""Training and refining with a MODEL of ComfyUI's."""
