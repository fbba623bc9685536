"""Layers shared by encoders and decoders: attention, transformer blocks. May use only Keras."""
