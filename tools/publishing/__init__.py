"""Publishes presets on the Hugging Face hub, with model cards made from their records."""
