"""Names and shapes of the published VisualGPT and PlayNTell weights."""

from __future__ import annotations

import zlib

import numpy as np


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a random array that depends on the name alone."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    values = values.astype(np.float32)
    if len(shape) == 1:
        return 1 + 0.1 * values if name.endswith("weight") else 0.1 * values
    return 0.04 * values


def linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a PyTorch linear layer by tensor name."""
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a layer norm by tensor name."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def conv(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a GPT-2 Conv1D layer by tensor name."""
    return {f"{name}.weight": (inputs, outputs), f"{name}.bias": (outputs,)}


def attention_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of an attention layer by tensor name."""
    shapes = conv(f"{name}.c_attn", width, 3 * width) | conv(f"{name}.c_proj", width, width)
    for part in "qkv":
        shapes |= linear(f"{name}.fc_{part}", width, width)
    return shapes


def small_playntell(
    width: int = 64, widths: tuple[int, ...] = (10, 256), gate: bool = True
) -> dict:
    """Returns the shapes of a PlayNTell with one layer and other modalities, by tensor name."""
    h, shapes = "decoder.transformer.h.0", {}
    for number, channels in enumerate(widths):
        shapes |= linear(f"encoder.transformations.{number}.fc", width, channels)
        shapes |= norm(f"encoder.transformations.{number}.layer_norm", width)
        shapes |= attention_shapes(f"{h}.enc_dec_attn.{number}", width)
    shapes |= {
        "decoder.transformer.wte.weight": (31, width),
        "decoder.transformer.wpe.weight": (16, width),
    }
    for name in (f"{h}.ln_1", f"{h}.ln_2", "decoder.transformer.ln_f"):
        shapes |= norm(name, width)
    shapes |= conv(f"{h}.attn.c_attn", width, 3 * width) | conv(f"{h}.attn.c_proj", width, width)
    shapes |= conv(f"{h}.mlp.c_fc", width, 4 * width) | conv(f"{h}.mlp.c_proj", 4 * width, width)
    return shapes | (linear(f"{h}.fc_alpha", width, 2 * width) if gate else {})
