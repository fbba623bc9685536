"""Encoders of images, region features and modalities. May use `backbones` and `layers`."""
