"""Layers that encoders and decoders share: attention, transformer blocks. May use Keras alone."""
