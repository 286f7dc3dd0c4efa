"""Every file format that is read or written: safetensors, checked before a tensor is read."""
