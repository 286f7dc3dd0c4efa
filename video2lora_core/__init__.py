"""Plain PyTorch core of Video2LoRA: no part of it imports the host."""
