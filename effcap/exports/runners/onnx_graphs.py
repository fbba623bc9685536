"""Runs the graphs in ONNX Runtime: pip install onnxruntime numpy pillow tokenizers"""

import numpy as np
import onnxruntime


class Graphs:
    """The graphs of a folder, with the memory and the cache of one batch."""

    def __init__(self, folder):
        names = ("encoder", "keys_values", "decoder")
        sessions = [onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in names]
        self.encoder, self.keys_values, self.decoder = sessions

    def start(self, inputs):
        """Computes the keys and values of memory of B rows, and empties the cache."""
        self.memory = run(self.keys_values, run(self.encoder, as_values(inputs, np.float32)))
        rows, sizes = len(next(iter(inputs.values()))), self.decoder.get_inputs()
        empty = {
            x.name: np.zeros((rows, x.shape[1], 0, x.shape[3])) for x in sizes if "cache" in x.name
        }
        self.cache = as_values(empty, np.float32)

    def extend(self, tokens, positions, mask):
        """Returns log-probabilities (B,T,V) after tokens (B,T), and adds these to the cache."""
        inputs = as_values({"tokens": tokens, "positions": positions}, np.int32)
        inputs |= as_values({"mask": mask}, bool)
        outputs = run(self.decoder, {**inputs, **self.memory, **self.cache})
        scores = outputs.pop("log_probs")
        self.cache = {name.removeprefix("next_"): value for name, value in outputs.items()}
        return scores.numpy()


def as_values(arrays, dtype):
    """Returns arrays as values of ONNX Runtime, which are not copied again."""
    make = onnxruntime.OrtValue.ortvalue_from_numpy
    return {name: make(np.ascontiguousarray(x, dtype)) for name, x in arrays.items()}


def run(session, inputs):
    """Returns the outputs of a graph by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run_with_ort_values(names, inputs), strict=True))
