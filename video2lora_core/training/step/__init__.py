"""One step: noise levels, losses, gradients."""
