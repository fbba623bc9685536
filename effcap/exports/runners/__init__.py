"""Sources of the runners that are written beside exported captioners: no Keras, no EffCap."""
