"""The demo's procedural world: clips, conditions, captions and foreign looks."""
