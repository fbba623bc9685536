"""Pages about training runs."""
