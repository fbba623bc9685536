"""An ONNX graph with the layers of EffCap's transformers, for onnx_graphs.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 20, 10


class Graph:
    """An ONNX graph that grows by one operator at a time."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"constant{len(self.constants)}"
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(values), dtype)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def add(self, operator: str, *inputs: str, outputs: Any = 1, **attributes: Any) -> Any:
        """Adds an operator; returns the name of its output, or of each output."""
        if isinstance(outputs, int):
            outputs = [f"{operator}{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return outputs[0] if len(outputs) == 1 else outputs

    def declare(self, name: str, shape: Any, integer: bool = False, output: bool = False) -> None:
        """Declares an input or output."""
        kind = TensorProto.INT64 if integer else TensorProto.FLOAT
        info = helper.make_tensor_value_info(name, kind, shape)
        (self.outputs if output else self.inputs).append(info)

    def dense(self, x: str, layer: Any, scaled: int = 0, scale: float = 1.0) -> str:
        """Adds x W + b, with the first `scaled` outputs multiplied by `scale`."""
        factors = np.ones(layer.kernel.shape[-1], np.float32)
        factors[:scaled] = scale
        kernel = self.constant(keras.ops.convert_to_numpy(layer.kernel) * factors)
        x = self.add("MatMul", x, kernel)
        return self.add("Add", x, self.constant(keras.ops.convert_to_numpy(layer.bias) * factors))

    def norm(self, x: str, layer: Any) -> str:
        gamma, beta = self.constant(layer.gamma), self.constant(layer.beta)
        return self.add("LayerNormalization", x, gamma, beta, epsilon=layer.epsilon)

    def heads(self, x: str, num_heads: int) -> str:
        """Splits (B,T,D) into (B,H,T,d)."""
        x = self.add("Reshape", x, self.integers(0, 0, num_heads, -1))
        return self.add("Transpose", x, perm=[0, 2, 1, 3])

    def mix(self, weights: str, values: str, layer: Any) -> str:
        """Adds the sums (B,T,D) of values (B,H,S,d) by weights (B,H,T,S), and a dense layer."""
        x = self.add("Transpose", self.add("MatMul", weights, values), perm=[0, 2, 1, 3])
        return self.dense(self.add("Reshape", x, self.integers(0, 0, -1)), layer)

    def attend(self, attn: Any, x: str, past: tuple[str, str] | None, mask: str | None) -> Any:
        """Adds self-attention; returns its output, and the keys and values attended to."""
        dim = attn.hidden_dim
        x = self.dense(x, attn.c_attn, dim, (dim // attn.num_heads) ** -0.5)
        parts = self.add("Split", x, self.integers(dim, dim, dim), outputs=3, axis=-1)
        queries, keys, values = (self.heads(part, attn.num_heads) for part in parts)
        if past is not None:
            names = [name.replace("past", "new") for name in past]
            keys = self.add("Concat", past[0], keys, outputs=[names[0]], axis=2)
            values = self.add("Concat", past[1], values, outputs=[names[1]], axis=2)
        scores = self.add("MatMul", queries, self.add("Transpose", keys, perm=[0, 1, 3, 2]))
        scores = scores if mask is None else self.add("Add", scores, mask)
        return self.mix(self.add("Softmax", scores, axis=-1), values, attn.c_proj)

    def feed_forward(self, x: str, block: Any) -> str:
        hidden = self.dense(self.norm(x, block.ln_2), block.mlp.c_fc)
        hidden = self.add("Gelu", hidden, approximate="tanh")
        return self.add("Add", x, self.dense(hidden, block.mlp.c_proj))

    def save(self, path: Path) -> None:
        graph = helper.make_graph(
            self.nodes, path.stem, self.inputs, self.outputs, initializer=self.constants
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        onnx.save(model, path)
