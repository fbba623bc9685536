"""The captioning server: a page to drop photos on, an endpoint, and batches across requests."""
