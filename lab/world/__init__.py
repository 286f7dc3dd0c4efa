"""The demo's procedural world: clips, conditions, captions, foreign looks, and how movement is measured."""
