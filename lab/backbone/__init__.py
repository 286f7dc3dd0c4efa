"""The demo's backbone: its networks, the state of their training and how it is probed."""
