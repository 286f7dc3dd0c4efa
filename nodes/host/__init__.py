"""What knows the host: its model patcher, its samplers, its files."""
