"""Adapters (LoRA): settings, the layers that take them, and PEFT's files."""
