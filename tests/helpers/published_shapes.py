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
    shapes |= small_gpt2(width)
    return shapes | (linear(f"{h}.fc_alpha", width, 2 * width) if gate else {})


def small_visualgpt(width: int = 64) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a VisualGPT with one layer and one level, by tensor name."""
    h, layer = "decoder.transformer.h.0", "encoder.layers.0"
    shapes = linear("encoder.fc", width, 48) | norm("encoder.layer_norm", width)
    for part in "qkvo":
        shapes |= linear(f"{layer}.mhatt.attention.fc_{part}", width, width)
    shapes |= norm(f"{layer}.mhatt.layer_norm", width) | norm(f"{layer}.pwff.layer_norm", width)
    shapes |= linear(f"{layer}.pwff.fc1", 96, width) | linear(f"{layer}.pwff.fc2", width, 96)
    shapes |= attention_shapes(f"{h}.enc_dec_attn", width)
    return shapes | small_gpt2(width) | linear(f"{h}.fc_alpha1", width, 2 * width)


def small_gpt2(width: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of both systems' GPT-2 with one layer, by tensor name."""
    h = "decoder.transformer.h.0"
    shapes = {
        "decoder.transformer.wte.weight": (31, width),
        "decoder.transformer.wpe.weight": (16, width),
    }
    for name in (f"{h}.ln_1", f"{h}.ln_2", "decoder.transformer.ln_f"):
        shapes |= norm(name, width)
    shapes |= conv(f"{h}.attn.c_attn", width, 3 * width) | conv(f"{h}.attn.c_proj", width, width)
    return shapes | (
        conv(f"{h}.mlp.c_fc", width, 4 * width) | conv(f"{h}.mlp.c_proj", 4 * width, width)
    )
