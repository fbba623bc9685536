"""Tokenizers: text to token ids and back. Needs neither Keras nor TensorFlow."""
