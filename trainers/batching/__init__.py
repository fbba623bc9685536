"""Batches of packed captions, and their prefetching into `fit`. Knows no files."""
