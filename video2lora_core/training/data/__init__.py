"""Clips on their way into training: lists, facts, cache, buckets, batches."""
