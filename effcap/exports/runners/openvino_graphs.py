"""Runs the graphs in OpenVINO: pip install openvino numpy pillow tokenizers"""

import numpy as np
import openvino


class Graphs:
    """The graphs of a folder, with the memory and the cache of one batch."""

    def __init__(self, folder):
        settings = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
        settings |= {"PERFORMANCE_HINT": "LATENCY", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 128}
        names = ("encoder", "keys_values", "decoder")
        models = [openvino.compile_model(folder / f"{x}.xml", "CPU", settings) for x in names]
        self.encoder, self.keys_values, self.decoder = (x.create_infer_request() for x in models)

    def start(self, inputs):
        """Computes the keys and values of memory of B rows, and empties the cache."""
        inputs = {name: np.asarray(x, np.float32) for name, x in inputs.items()}
        memory = run(self.keys_values, run(self.encoder, inputs))
        for port in self.decoder.model_inputs:
            if port.any_name in memory:
                self.decoder.set_tensor(port.any_name, openvino.Tensor(memory[port.any_name]))
        self.decoder.reset_state()

    def extend(self, tokens, positions, mask):
        """Returns log-probabilities (B,T,V) after tokens (B,T), and adds these to the cache."""
        inputs = {"tokens": np.array(tokens, np.int32), "positions": np.array(positions, np.int32)}
        inputs["mask"] = np.array(mask, bool)
        for name, array in inputs.items():
            self.decoder.set_tensor(name, openvino.Tensor(array))
        self.decoder.infer()
        return self.decoder.get_tensor("log_probs").data


def run(request, arrays):
    """Returns the outputs of a graph by name; an output may have several."""
    names = [port.any_name for port in request.model_inputs]
    results = request.infer({name: arrays[name] for name in names})
    return {name: array for port, array in results.items() for name in port.names}
