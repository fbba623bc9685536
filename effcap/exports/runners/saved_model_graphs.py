"""Runs the graphs in TensorFlow: pip install tensorflow numpy pillow tokenizers"""

import numpy as np
import tensorflow as tf


class Graphs:
    """The signatures of a SavedModel, with the memory and the cache of one batch."""

    def __init__(self, folder):
        self.model = tf.saved_model.load(str(folder / "saved_model"))
        self.call = self.model.signatures
        specs = self.call["decoder"].structured_input_signature[1]
        self.sizes = {name: spec.shape for name, spec in specs.items() if "cache" in name}

    def start(self, inputs):
        """Computes the keys and values of memory of B rows, and empties the cache."""
        inputs = {name: tf.constant(x, tf.float32) for name, x in inputs.items()}
        self.memory, rows = (
            self.call["keys_values"](**self.call["encoder"](**inputs)),
            len(next(iter(inputs.values()))),
        )
        self.cache = {k: tf.zeros((rows, n[1], 0, n[3])) for k, n in self.sizes.items()}

    def extend(self, tokens, positions, mask):
        """Returns log-probabilities (B,T,V) after tokens (B,T), and adds these to the cache."""
        inputs = {
            "tokens": tf.constant(tokens, tf.int32),
            "positions": tf.constant(positions, tf.int32),
        }
        inputs["mask"] = tf.constant(np.asarray(mask))
        outputs = self.call["decoder"](**inputs, **self.memory, **self.cache)
        scores = outputs.pop("log_probs").numpy()
        self.cache = {name.removeprefix("next_"): value for name, value in outputs.items()}
        return scores
