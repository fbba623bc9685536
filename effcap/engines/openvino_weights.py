"""Weights of an OpenVINO model: where its fast matrix products find them, and in 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from effcap.utils.quantization import quantize_rows

MIN_SIZE = 1 << 14  # values of a weight matrix that is worth it


def prepare_weights(model: Any) -> None:
    """Computes what depends on weights alone, and makes weights second factors of products.

    OpenVINO packs the second factor of a matrix product for the processor, and only that one.

    Args:
        model: `openvino.Model`, which is changed.
    """
    from openvino import opset13 as opset
    from openvino.passes import ConstantFolding, Manager

    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(model)
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul" or not _is_weight(node.input_value(0).get_node()):
            continue
        attributes = node.get_attributes()
        if attributes["transpose_a"] or len(node.input_value(1).get_partial_shape()) != 2:
            continue
        # A X = (X' A')'
        swapped = opset.matmul(
            node.input_value(1), node.input_value(0), not attributes["transpose_b"], True
        )
        node.output(0).replace(opset.transpose(swapped, [1, 0]).output(0))
    model.validate_nodes_and_infer_types()


def compress_weights(model: Any) -> int:
    """Replaces the weights of matrix products and embeddings by int8 and a scale per output.

    Activations stay as they are: OpenVINO multiplies by the scales inside of the product.

    Args:
        model: `openvino.Model`, which is changed.

    Returns:
        The number of weight matrices.
    """
    from openvino import opset13 as opset

    compressed: dict[tuple[str, bool], tuple[Any, Any]] = {}

    def rows_of(constant: Any, is_transposed: bool) -> tuple[Any, Any]:
        """Returns the constants of the int8 rows, one per output, and of their scales."""
        key = (constant.get_name(), is_transposed)
        if key not in compressed:
            matrix = constant.data.T if is_transposed else constant.data
            rows, scales = quantize_rows(matrix)
            compressed[key] = opset.constant(np.ascontiguousarray(rows)), opset.constant(scales)
        return compressed[key]

    for node in model.get_ordered_ops():
        if node.get_type_name() == "MatMul" and _is_weight(node.input_value(1).get_node()):
            attributes = node.get_attributes()
            rows, scales = rows_of(
                node.input_value(1).get_node(), is_transposed=not attributes["transpose_b"]
            )
            weights = opset.multiply(opset.convert(rows, "f32"), scales)
            replacement = opset.matmul(
                node.input_value(0), weights, attributes["transpose_a"], True
            )
        elif node.get_type_name() == "Gather" and _is_weight(node.input_value(0).get_node()):
            rows, scales = rows_of(node.input_value(0).get_node(), is_transposed=False)
            ids, axis = node.input_value(1), node.input_value(2)
            embeddings = opset.convert(opset.gather(rows, ids, axis), "f32")
            replacement = opset.multiply(embeddings, opset.gather(scales, ids, axis))
        else:
            continue
        replacement.output(0).get_tensor().set_names(node.output(0).get_names())
        node.output(0).replace(replacement.output(0))
    model.validate_nodes_and_infer_types()
    return len(compressed)


def _is_weight(node: Any) -> bool:
    """Returns whether a node is a constant matrix of float32 that is large enough."""
    if node.get_type_name() != "Constant" or node.get_element_type().get_type_name() != "f32":
        return False
    return len(node.get_output_shape(0)) == 2 and node.data.size >= MIN_SIZE
