"""Nodes of reference videos: where they come from, what is predicted from them, results beside them."""
