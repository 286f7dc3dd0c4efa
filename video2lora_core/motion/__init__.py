"""AnimateDiff motion modules: read from their tensors, built, run."""
