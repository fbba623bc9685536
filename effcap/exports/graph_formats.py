"""Formats of exported captioners: how their graphs are written, and what runs them."""

from __future__ import annotations

import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import keras
import tensorflow as tf

from effcap.engines.openvino_models import save_openvino
from effcap.exports.saved_model import SavedModelWriter
from effcap.precision import check_openvino
from effcap.utils.quiet import quiet

if TYPE_CHECKING:
    from effcap.exports.exported_models import ExportedParts

ONNX_OPSET = 17  # the newest that onnxruntime-web and older runtimes have all operators of
ONE = "one_of_erfc"
LARGEST = 2**31 - 2**20  # bytes of a file of ONNX or LiteRT


class GraphWriter(Protocol):
    """Writes the graphs of a captioner, one after the other."""

    def __init__(self, folder: Path, dtype: str) -> None: ...

    def add(self, name: str, model: Any) -> None:
        """Writes a model with a `signature()` as the graph `name`."""

    def close(self, parts: ExportedParts) -> None:
        """Writes what belongs to all graphs together."""


@dataclass(frozen=True)
class GraphFormat:
    """A format of exported captioners.

    Attributes:
        writer: class that writes the graphs.
        dtypes: types of stored weights.
        runner: module of `effcap.exports.runners` that runs the graphs.
        check: raises an `ImportError` if what writes them is not installed.
    """

    writer: Callable[[Path, str], GraphWriter]
    dtypes: tuple[str, ...]
    runner: str
    check: Callable[[], None] = lambda: None


class FileWriter(ABC):
    """Writes each graph to a file of its own.

    Args:
        folder: existing folder.
        dtype: "float32", or "int8" for the weights of matrix products.
    """

    def __init__(self, folder: Path, dtype: str) -> None:
        self.folder, self.dtype = folder, dtype

    @abstractmethod
    def add(self, name: str, model: Any) -> None:
        """Writes a model as the graph `name`; see `GraphWriter`."""

    def close(self, parts: ExportedParts) -> None:
        return  # the files are complete


class OnnxWriter(FileWriter):
    """Writes ONNX graphs, through tf2onnx; "int8" also rounds embeddings."""

    def add(self, name: str, model: Any) -> None:
        check_size(model, "onnx")
        path = self.folder / f"{name}.onnx"
        with quiet():
            model.export(
                str(path),
                format="onnx",
                verbose=False,
                input_signature=model.signature(),
                opset_version=ONNX_OPSET,
            )
        replace_erfc(path)
        if self.dtype == "int8":
            quantize_onnx(path)


class LiteRtWriter(FileWriter):
    """Writes graphs of LiteRT, once TensorFlow Lite; "int8" also rounds convolutions."""

    def add(self, name: str, model: Any) -> None:
        check_size(model, "litert")
        settings: dict[str, Any] = {
            # Without what only TensorFlow has.
            "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
        }
        if self.dtype == "int8":
            settings["optimizations"] = [tf.lite.Optimize.DEFAULT]
        path = str(self.folder / f"{name}.tflite")
        with quiet():
            model.export(
                path,
                format="litert",
                verbose=False,
                input_signature=model.signature(),
                **settings,
            )


class OpenVinoWriter(FileWriter):
    """Writes OpenVINO models; the cache is a state of the decoder, not an input."""

    def add(self, name: str, model: Any) -> None:
        save_openvino(model, self.folder / f"{name}.xml", self.dtype)


def check_size(model: keras.Model, name: str) -> None:
    """Checks that a model fits into a file of a format.

    Raises:
        ValueError: it does not.
    """
    size = sum(4 * math.prod(weight.shape) for weight in model.weights)
    if size > LARGEST:
        raise ValueError(
            f"The {model.name} has {size / 2**30:.1f} GiB of weights, and a file of the format "
            f"{name} holds less than 2: export it as openvino or savedmodel"
        )


def replace_erfc(path: Path) -> None:
    """Replaces the complement of the error function, which GELU has and ONNX has not, in place."""
    import onnx

    model = onnx.load(path)
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Erfc":
            (x,), (y,) = node.input, node.output
            nodes.append(onnx.helper.make_node("Erf", [x], [f"{y}/erf"], f"{node.name}/erf"))
            node = onnx.helper.make_node("Sub", [ONE, f"{y}/erf"], [y], node.name)
        nodes.append(node)
    if len(nodes) == len(model.graph.node):
        return
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    one = onnx.helper.make_tensor(ONE, onnx.TensorProto.FLOAT, (), [1.0])
    model.graph.initializer.append(one)
    onnx.save(model, path)


def quantize_onnx(path: Path) -> None:
    """Rounds the weights of matrix products and embeddings of an ONNX graph to 8 bits, in place.

    Constants are computed first, because only constant weights are rounded.
    """
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as temporary:
        folded = Path(temporary) / path.name
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        quantize_dynamic(
            folded,
            path,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )


def check_onnx() -> None:
    """Checks that tf2onnx and ONNX Runtime are installed.

    Raises:
        ImportError: they are not.
    """
    try:
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError:
        raise ImportError(
            "The format onnx requires tf2onnx and ONNX Runtime: pip install 'effcap[onnx]'"
        ) from None


# Formats by name. Add one by an entry here and a module of `effcap.exports.runners`.
FORMATS = {
    "savedmodel": GraphFormat(SavedModelWriter, ("float32",), "saved_model_graphs"),
    "litert": GraphFormat(LiteRtWriter, ("float32", "int8"), "litert_graphs"),
    "onnx": GraphFormat(OnnxWriter, ("float32", "int8"), "onnx_graphs", check_onnx),
    "openvino": GraphFormat(OpenVinoWriter, ("float32", "int8"), "openvino_graphs", check_openvino),
}
