"""Rewrites of exported models into operations that OpenVINO runs faster, with equal results."""

from __future__ import annotations

from typing import Any

import numpy as np

from effcap.engines.traced_models import CACHE, NEXT_CACHE, TOKENS
from effcap.layers.transformer import GELU_CUBE, GELU_SLOPE

SWAP = (0, 2, 1, 3)  # (B,H,S,d) -> (B,S,H,d) and back


def fuse_norms(model: Any) -> None:
    """Replaces layer normalizations, which Keras composes of ten operations, by one each.

    Args:
        model: `openvino.Model`, which is changed.
    """
    from openvino import opset13 as opset

    for squares in _of_type(model, "SquaredDifference"):
        norm = _find_norm(squares)
        if norm is None:
            continue
        end, epsilon, gamma, beta = norm
        axes = opset.constant(np.array([-1], np.int32))
        normal = opset.mvn(squares.input_value(0), axes, True, epsilon, "inside_sqrt")
        if gamma is not None:
            normal = opset.multiply(normal, gamma)
        if beta is not None:
            normal = opset.add(normal, beta)
        end.output(0).replace(normal.output(0))
    model.validate_nodes_and_infer_types()


def _find_norm(squares: Any) -> tuple[Any, float, Any, Any] | None:
    """Finds the normalization x * scale + (beta - mean * scale) around (x - mean)**2.

    Returns:
        Its last node, epsilon, and gamma and beta or None for each; None if it is something else.
    """
    x, mean = squares.input_value(0), squares.input_value(1)
    power = _follow(squares, "ReduceMean", "Add", "Power")
    if power is None or mean.get_node().get_type_name() != "ReduceMean":
        return None
    axes, rank = mean.get_node().input_value(1).get_node(), len(x.get_partial_shape())
    if axes.get_type_name() != "Constant" or axes.data.ravel().tolist() not in ([-1], [rank - 1]):
        return None
    epsilon = power.input_value(0).get_node().input_value(1).get_node()
    scale, gamma = power, None
    if len(_consumers(power)) == 1:
        scale = _consumers(power)[0]
        gamma = _other_input(scale, power)
    products = _consumers(scale)
    if epsilon.get_type_name() != "Constant" or len(products) != 2:
        return None
    of_x, of_mean = sorted(products, key=lambda node: _other_input(node, scale) != x)
    end = _follow(of_x, "Add")
    if end is None or _other_input(of_x, scale) != x:
        return None
    shift, beta = _other_input(end, of_x).get_node(), None
    if shift != of_mean:
        beta = _other_input(shift, of_mean)
    return end, float(epsilon.data.item()), gamma, beta


def fuse_gelus(model: Any) -> None:
    """Replaces GELUs through a tanh, which `gelu_tanh` composes of a sigmoid, by one operation.

    Args:
        model: `openvino.Model`, which is changed.
    """
    from openvino import opset13 as opset

    samples = np.linspace(-3, 3, 7, dtype=np.float32)
    for sigmoid in _of_type(model, "Sigmoid"):
        product = _follow(sigmoid, "Multiply")
        if product is None:
            continue
        x = _other_input(product, sigmoid)
        values = _evaluate(sigmoid.input_value(0), x, samples)
        expected = GELU_SLOPE * (samples + GELU_CUBE * samples**3)
        if values is not None and np.allclose(values, expected, rtol=1e-4):
            product.output(0).replace(opset.gelu(x, "tanh").output(0))
    model.validate_nodes_and_infer_types()


def _evaluate(output: Any, x: Any, values: np.ndarray) -> Any:
    """Computes sums and products of x and numbers for values of x; None for anything else."""
    node = output.get_node()
    if output == x:
        return values
    if node.get_type_name() == "Constant" and node.data.size == 1:
        return node.data.item()
    operation = {"Multiply": np.multiply, "Add": np.add}.get(node.get_type_name())
    if operation is None:
        return None
    inputs = [_evaluate(node.input_value(i), x, values) for i in range(2)]
    return None if any(one is None for one in inputs) else operation(*inputs)


def fuse_cached_attention(model: Any) -> None:
    """Replaces scores, mask, softmax and sum of attention over a cache by one operation.

    Args:
        model: `openvino.Model` of a decoder, which is changed.
    """
    from openvino import opset13 as opset

    for softmax in _of_type(model, "Softmax"):
        masked, total = softmax.input_value(0).get_node(), _follow(softmax, "MatMul")
        if masked.get_type_name() != "Select" or total is None:
            continue
        mask, product = masked.input_value(0), masked.input_value(1).get_node()
        keys, values = product.input_value(1), total.input_value(1)
        if product.get_type_name() != "MatMul" or not all(map(_is_cached, (keys, values))):
            continue
        attention = opset.scaled_dot_product_attention(
            product.input_value(0), keys, values, mask, opset.constant(np.float32(1))
        )  # (B,H,T,d)
        total.output(0).replace(attention.output(0))
    model.validate_nodes_and_infer_types()


def keep_cache(model: Any) -> None:
    """Makes the cache a state of the model, in place of inputs and outputs that are copied.

    The state is empty after `InferRequest.reset_state()`, and grows by the keys and values of each
    call.

    Args:
        model: `openvino.Model` of a decoder, which is changed.
    """
    import openvino
    from openvino import opset13 as opset

    inputs = {port.any_name: port.get_node() for port in model.inputs}
    outputs = {port.any_name: port.get_node() for port in model.outputs}
    zero, one = opset.constant(np.int32(0)), opset.constant(np.int32(1))
    images = opset.gather(opset.shape_of(inputs[TOKENS].output(0), "i32"), zero, zero)  # ()
    sinks = []
    for number in range(sum(name.startswith(CACHE[:-5]) for name in inputs)):
        parameter = inputs[CACHE.format(number)]
        shape = parameter.get_partial_shape()  # (B,H,S,d)
        heads, head_dim = shape[1].get_length(), shape[3].get_length()
        sizes = opset.constant(np.array([0, heads, head_dim], np.int32))
        empty_shape = opset.concat([opset.unsqueeze(images, zero), sizes], 0)
        empty = opset.broadcast(opset.constant(np.float32(0)), empty_shape)  # (B,0,H,d)
        state = openvino.op.util.VariableInfo()
        state.data_shape = openvino.PartialShape([-1, -1, heads, head_dim])
        state.data_type, state.variable_id = openvino.Type.f32, CACHE.format(number)
        variable = openvino.op.util.Variable(state)
        earlier = openvino.opset6.read_value(empty.output(0), variable)  # (B,S,H,d)
        joined = _follow(parameter, "Concat") or _follow(parameter, "Transpose", "Concat")
        assert joined is not None, f"{parameter} is not a cache"
        new, is_swapped = joined.input_value(1), joined.get_attributes()["axis"] == 1
        if not is_swapped:
            new = opset.transpose(new, np.array(SWAP)).output(0)  # (B,H,T,d) -> (B,T,H,d)
        if _feeds_attention(joined):
            # Without the choice of rows, which are all, OpenVINO would copy the state.
            rows = opset.range(zero, images, one, "i32")  # (B,)
            earlier = opset.gather(earlier, rows, zero)  # (B,S,H,d)
        grown = opset.concat([earlier, new], 1)  # (B,S+T,H,d)
        sinks.append(openvino.opset6.assign(grown, variable))
        if not is_swapped:
            grown = opset.transpose(grown, np.array(SWAP))  # (B,S+T,H,d) -> (B,H,S+T,d)
        model.remove_result(outputs[NEXT_CACHE.format(number)])
        joined.output(0).replace(grown.output(0))
        model.remove_parameter(parameter)
    model.add_sinks(sinks)
    model.validate_nodes_and_infer_types()


def _of_type(model: Any, kind: str) -> list[Any]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() == kind]


def _consumers(node: Any) -> list[Any]:
    return [target.get_node() for target in node.output(0).get_target_inputs()]


def _follow(node: Any, *kinds: str) -> Any:
    """Returns the last of nodes of these types that consume each other; None without them."""
    for kind in kinds:
        node = next((one for one in _consumers(node) if one.get_type_name() == kind), None)
        if node is None:
            return None
    return node


def _other_input(node: Any, first: Any) -> Any:
    """Returns the input of a node with two inputs that is not the output of `first`."""
    return node.input_value(int(node.input_value(0).get_node() == first))


def _is_cached(keys: Any) -> bool:
    """Returns whether keys or values are those of a cache and of new tokens."""
    node = keys.get_node()
    if node.get_type_name() == "Transpose":
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Concat"


def _feeds_attention(joined: Any) -> bool:
    """Returns whether `fuse_cached_attention` has replaced the attention over a cache."""
    kind = "ScaledDotProductAttention"
    return any(_follow(joined, *path, kind) for path in ((), ("Transpose",)))
