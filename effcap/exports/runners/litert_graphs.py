"""Runs the graphs in LiteRT: pip install ai-edge-litert numpy pillow tokenizers"""

import os

import numpy as np
from ai_edge_litert.interpreter import Interpreter


class Graphs:
    """The graphs of a folder, with the memory and the cache of one batch."""

    def __init__(self, folder):
        names, threads = ("encoder", "keys_values", "decoder"), os.cpu_count()
        files = [Interpreter(str(folder / f"{name}.tflite"), num_threads=threads) for name in names]
        self.encoder, self.keys_values, self.decoder = (x.get_signature_runner() for x in files)
        details = self.decoder.get_input_details()
        self.sizes = {name: x["shape"] for name, x in details.items() if "cache" in name}

    def start(self, inputs):
        """Computes the keys and values of memory of B rows, and empties the cache."""
        inputs = {name: np.asarray(x, np.float32) for name, x in inputs.items()}
        self.memory, rows = (
            self.keys_values(**self.encoder(**inputs)),
            len(next(iter(inputs.values()))),
        )
        # One position that no token attends to: LiteRT has no empty tensors.
        self.cache = {k: np.zeros((rows, n[1], 1, n[3]), np.float32) for k, n in self.sizes.items()}

    def extend(self, tokens, positions, mask):
        """Returns log-probabilities (B,T,V) after tokens (B,T), and adds these to the cache."""
        tokens, positions = np.asarray(tokens, np.int32), np.asarray(positions, np.int32)
        mask = np.pad(np.asarray(mask, bool), ((0, 0), (0, 0), (1, 0)))
        inputs = {"tokens": tokens, "positions": positions, "mask": mask}
        outputs = self.decoder(**inputs, **self.memory, **self.cache)
        scores = outputs.pop("log_probs")
        self.cache = {name.removeprefix("next_"): value for name, value in outputs.items()}
        return scores
