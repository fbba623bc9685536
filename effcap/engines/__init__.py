"""Engines that run captioners in place of Keras. May use all of effcap up to captioning."""
