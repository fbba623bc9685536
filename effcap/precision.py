"""Arithmetic of captioners, by name, and the Keras dtype policies for it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

PrecisionName = Literal["float32", "bfloat16", "int8"]
EngineName = Literal["keras", "openvino"]
ENGINES: dict[str, tuple[str, ...]] = {  # with their precisions
    "keras": ("float32", "bfloat16"),
    "openvino": ("float32", "bfloat16", "int8"),
}
OPENVINO_PACKAGES = ("openvino", "scipy")
STORED_DTYPES = ("float32", "float16", "int8")  # of the weights in a preset


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Arithmetic of a captioner.

    In both uses, layer norms, softmax, logits of generated tokens and scores are float32.

    Attributes:
        caption_policy: Keras dtype policy of a captioner that writes captions. That of "bfloat16"
            stores the weights in half the space, too.
        training_policy: Keras dtype policy of a captioner that is trained, whose weights stay
            float32.
    """

    caption_policy: str
    training_policy: str


PRECISIONS: dict[str, Precision] = {
    "float32": Precision(caption_policy="float32", training_policy="float32"),
    "bfloat16": Precision(caption_policy="bfloat16", training_policy="mixed_bfloat16"),
}


def find_precision(name: str) -> Precision:
    """Returns the precision of a name in `PRECISIONS`.

    Raises:
        ValueError: there is none.
    """
    if name not in PRECISIONS:
        raise ValueError(
            f"Expected a precision out of {', '.join(PRECISIONS)}. Received: precision={name!r}"
        )
    return PRECISIONS[name]


def check_engine(engine: str, precision: str) -> None:
    """Checks that there is an engine of this name, and that it has the precision.

    Raises:
        ValueError: there is none, or it has not.
    """
    if engine not in ENGINES:
        raise ValueError(
            f"Expected an engine out of {', '.join(ENGINES)}. Received: engine={engine!r}"
        )
    if precision not in ENGINES[engine]:
        raise ValueError(
            f"Expected a precision of the engine {engine} out of {', '.join(ENGINES[engine])}. "
            f"Received: precision={precision!r}"
        )


def check_openvino() -> None:
    """Checks that OpenVINO is installed, and what Keras's module for it imports.

    Raises:
        ImportError: a package is not.
    """
    missing = [name for name in OPENVINO_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            "The engine openvino requires further packages: pip install 'effcap[openvino]' "
            f"(missing: {', '.join(missing)})"
        )


@contextmanager
def dtype_policy(policy: str | None) -> Iterator[None]:
    """Makes new layers use a Keras dtype policy in a `with` statement; None changes nothing."""
    import keras

    before = keras.config.dtype_policy()
    if policy is not None:
        keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
