"""Batches of packed captions, and prefetching. May use `effcap`, `options` and `data.example`."""
