"""What a run keeps and shows: checkpoints, logs, samples, its page."""
