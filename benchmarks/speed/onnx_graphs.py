"""Writes a captioner of EffCap with cross-attention as ONNX graphs, made by hand.

    encoder.onnx  images (B,h,w,3) -> keys k0… (B,H,d,S) and values v0… (B,H,S,d) of memory
    step.onnx     tokens (B,K), position (1), mask (B,1,K,N), keys and values of memory, and those
                  of earlier tokens -> the most probable tokens, their log-probabilities, and the
                  keys and values extended by those of `tokens`

The graphs have the operators that ONNX Runtime is fastest with: keys of memory transposed once,
the scale of attention part of the weights, no caches that are reordered (a mask chooses the
ancestors of a beam), and the search over the whole vocabulary inside the graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
from onnx_graph import Graph


def write_graphs(captioner: Any, folder: Path) -> None:
    """Writes encoder.onnx and step.onnx of a captioner with `fusion.kind="cross"`."""
    write_encoder(captioner.encoder, captioner.decoder, folder / "encoder.onnx")
    write_step(captioner.encoder, captioner.decoder, folder / "step.onnx")


def write_encoder(encoder: Any, decoder: Any, path: Path) -> None:
    """Writes photos to keys and values of memory."""
    graph, backbone = Graph(), encoder.backbone
    graph.declare("images", ["B", *backbone.image_size, 3])
    x = graph.add("Mul", "images", graph.constant(backbone.preprocessing.scale))
    x = graph.add("Add", x, graph.constant(backbone.preprocessing.offset))
    x = add_network(graph, backbone.net, graph.add("Transpose", x, perm=[0, 3, 1, 2]))  # (B,C,h,w)
    positions, depth = backbone.feature_shape
    x = graph.add("Reshape", x, graph.integers(0, depth, positions))  # (B,C,S)
    x = graph.norm(graph.add("Transpose", x, perm=[0, 2, 1]), encoder.feature_norm)  # (B,S,C)
    x = graph.dense(x, encoder.projection)  # (B,S,D)
    x = graph.add("Add", x, graph.constant(encoder.position_embedding.embeddings))
    for block in encoder.blocks:
        mixed = graph.attend(block.attn, graph.norm(x, block.ln_1), None, None)
        x = graph.feed_forward(graph.add("Add", x, mixed), block)
    memory, dim = graph.norm(x, encoder.norm), decoder.hidden_dim
    for number, block in enumerate(decoder.blocks):
        both = graph.dense(memory, block.fusion.attention.key_value)  # (B,S,2D)
        keys, values = graph.add("Split", both, graph.integers(dim, dim), outputs=2, axis=-1)
        keys = graph.add("Reshape", keys, graph.integers(0, 0, decoder.num_heads, -1))  # (B,S,H,d)
        graph.add("Transpose", keys, outputs=[f"k{number}"], perm=[0, 2, 3, 1])
        values = graph.heads(values, decoder.num_heads)
        graph.add("Identity", values, outputs=[f"v{number}"])
        declare_memory(graph, number, encoder, decoder, output=True)
    graph.save(path)


def declare_memory(graph: Graph, number: int, encoder: Any, decoder: Any, output: bool) -> None:
    """Declares keys (B,H,d,S) and values (B,H,S,d) of a block."""
    heads, positions = decoder.num_heads, encoder.backbone.feature_shape[0]
    dim = decoder.hidden_dim // heads
    graph.declare(f"k{number}", ["B", heads, dim, positions], output=output)
    graph.declare(f"v{number}", ["B", heads, positions, dim], output=output)


def add_network(graph: Graph, network: keras.Model, x: str) -> str:
    """Adds a network of keras.applications in channels-first order; returns its output.

    Raises:
        NotImplementedError: a layer is of another type than those of EfficientNet.
    """
    names = {id(network.inputs[0]): x}
    for layer in network.layers:
        node = layer._inbound_nodes[-1]
        inputs = [names[id(tensor)] for tensor in node.input_tensors if id(tensor) in names]
        kind = type(layer).__name__
        if kind == "InputLayer":
            continue
        if kind in ("Conv2D", "DepthwiseConv2D"):
            output = add_convolution(graph, layer, inputs[0])
        elif kind == "BatchNormalization":
            stages = (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
            constants = map(graph.constant, stages)
            output = graph.add(kind, *inputs, *constants, epsilon=layer.epsilon)
        elif kind == "Activation":
            output = add_activation(graph, layer, inputs[0])
        elif kind == "GlobalAveragePooling2D":
            output = graph.add("GlobalAveragePool", *inputs)  # (B,C,1,1)
        elif kind in ("Reshape", "Dropout"):  # the first restores the two axes
            output = inputs[0]
        elif kind in ("Add", "Multiply"):
            output = graph.add({"Add": "Add", "Multiply": "Mul"}[kind], *inputs)
        else:
            raise NotImplementedError(f"no ONNX graph of {kind} layers")
        names[id(node.outputs[0])] = output
    return names[id(network.outputs[0])]


def add_convolution(graph: Graph, layer: Any, x: str) -> str:
    """Adds a convolution and its activation, with Keras's padding."""
    kernel = keras.ops.convert_to_numpy(layer.kernel)  # (h,w,C,C')
    is_depthwise = type(layer).__name__ == "DepthwiseConv2D"
    kernel = kernel.transpose(2, 3, 0, 1) if is_depthwise else kernel.transpose(3, 2, 0, 1)
    inputs = [x, graph.constant(kernel)] + ([graph.constant(layer.bias)] if layer.use_bias else [])
    output = graph.add(
        "Conv",
        *inputs,
        group=kernel.shape[0] if is_depthwise else 1,
        strides=list(layer.strides),
        auto_pad="SAME_UPPER" if layer.padding == "same" else "VALID",
    )
    return add_activation(graph, layer, output)


def add_activation(graph: Graph, layer: Any, x: str) -> str:
    """Adds the activation of a layer.

    Raises:
        NotImplementedError: it is neither SiLU nor a sigmoid nor none.
    """
    name = layer.activation.__name__
    if name in ("silu", "swish"):
        return graph.add("Mul", x, graph.add("Sigmoid", x))
    if name not in ("linear", "sigmoid"):
        raise NotImplementedError(f"no ONNX graph of the activation {name}")
    return x if name == "linear" else graph.add("Sigmoid", x)


def write_step(encoder: Any, decoder: Any, path: Path) -> None:
    """Writes the decoding step."""
    graph, heads = Graph(), decoder.num_heads
    dim = decoder.hidden_dim // heads
    graph.declare("tokens", ["B", "K"], integer=True)
    graph.declare("position", [1], integer=True)
    graph.declare("count", [1], integer=True)
    graph.declare("mask", ["B", 1, "K", "N"])
    table = decoder.token_embedding.embeddings
    x = graph.add("Gather", graph.constant(table), "tokens")  # (B,K,D)
    positions = graph.constant(decoder.position_embedding.embeddings)
    x = graph.add("Add", x, graph.add("Gather", positions, "position"))
    for number, block in enumerate(decoder.blocks):
        past = (f"past_k{number}", f"past_v{number}")
        for name in past:
            graph.declare(name, ["B", heads, "P", dim])
            graph.declare(name.replace("past", "new"), ["B", heads, "N", dim], output=True)
        declare_memory(graph, number, encoder, decoder, output=False)
        mixed = graph.attend(block.attn, graph.norm(x, block.ln_1), past, "mask")
        x = graph.add("Add", x, mixed)
        attention = block.fusion.attention
        queries = graph.norm(x, block.fusion.norm)
        queries = graph.dense(queries, attention.query, decoder.hidden_dim, dim**-0.5)
        scores = graph.add("MatMul", graph.heads(queries, heads), f"k{number}")  # (B,H,K,S)
        weights = graph.add("Softmax", scores, axis=-1)
        x = graph.add("Add", x, graph.mix(weights, f"v{number}", attention.c_proj))
        x = graph.feed_forward(x, block)
    head = graph.constant(keras.ops.convert_to_numpy(table).T)  # (D,V)
    logits = graph.add("MatMul", graph.norm(x, decoder.ln_f), head)  # (B,K,V)
    top, _ = graph.add("TopK", logits, "count", outputs=["top", "ids"], axis=-1)
    total = graph.add("ReduceLogSumExp", logits, graph.integers(-1), keepdims=1)
    graph.add("Sub", top, total, outputs=["log_probs"])
    graph.declare("log_probs", ["B", "K", "C"], output=True)
    graph.declare("ids", ["B", "K", "C"], integer=True, output=True)
    graph.save(path)
