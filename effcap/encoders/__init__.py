"""Encoders: images, region features or modalities to memory. May use `backbones` and `layers`."""
