"""Language decoders and fusion layers. May use `layers`; independent of images."""
