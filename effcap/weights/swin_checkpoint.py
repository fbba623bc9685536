"""Reads the files of published Swin transformers: the original's `.pth`, and X-VLM's `.th`.

The original (https://github.com/microsoft/Swin-Transformer) stores `{"model": {"layers.0…"}}`, with
a classifier; X-VLM (Zeng et al., ICML 2022, https://github.com/zengyan-97/X-VLM) stores
`{"model": {"vision_encoder.layers.0…", "text_encoder…", …}}`. Either may be a bare state dict.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from effcap.weights.position_bias import window_side
from effcap.weights.torch_file import TorchFile, read_torch

KEY = "patch_embed.proj.weight"
TABLE = "attn.relative_position_bias_table"
FIRST_TABLE = f"layers.0.blocks.0.{TABLE}"
XVLM_PREFIX = "vision_encoder."
# Names that are skipped: buffers that follow from the sizes, the original's classifier, the other
# parts of X-VLM's models, and what a training program keeps beside the model.
BUFFERS = re.compile(r"layers\.\d+\.blocks\.\d+\.(attn\.relative_position_index|attn_mask)")
CLASSIFIER = re.compile(r"head\.(weight|bias)")
XVLM_PARTS = re.compile(r"(text_encoder|text_decoder|vision_proj|text_proj|\w+_head)\..+|temp")
TRAINING_STATE = re.compile(r"(optimizer|lr_scheduler|scaler|amp)\..+")


@dataclass(frozen=True)
class SwinCheckpoint:
    """A file with the weights of a Swin transformer.

    Attributes:
        tensors: the Swin's tensors, by the original's names.
        is_xvlm: whether the file is X-VLM's.
        skipped: number of tensors that are skipped, by part of the file.
        unknown: names and shapes of all other tensors.
    """

    tensors: TorchFile
    is_xvlm: bool
    skipped: Mapping[str, int]
    unknown: Mapping[str, tuple[int, ...]]

    def parameters(self) -> list[str]:
        """Returns the names of the Swin's tensors that are not skipped."""
        return [name for name in self.tensors if _skipped_part(name, self.is_xvlm) is None]

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of one of the Swin's tensors.

        Raises:
            ValueError: there is no such tensor.
        """
        if name not in self.tensors:
            raise ValueError(f"{self.tensors.name} has no tensor {name}")
        return self.tensors.shape(name)


def _skipped_part(name: str, is_xvlm: bool) -> str | None:
    """Returns the part that a skipped tensor of a Swin belongs to; None for a parameter."""
    if BUFFERS.fullmatch(name):
        return name.rpartition(".")[2]
    return "head" if CLASSIFIER.fullmatch(name) and not is_xvlm else None


def find_swin(path: str | PathLike) -> SwinCheckpoint | None:
    """Opens a file if it has the weights of one Swin transformer; otherwise returns None.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged.
    """
    file = read_torch(path)
    prefixes = [
        name.removesuffix(KEY)
        for name in file
        if (name == KEY or name.endswith(f".{KEY}"))
        and f"{name.removesuffix(KEY)}{FIRST_TABLE}" in file
    ]
    if len(prefixes) != 1:
        return None
    (prefix,) = prefixes
    is_xvlm = prefix.endswith(XVLM_PREFIX)
    root = prefix.removesuffix(XVLM_PREFIX)
    skipped: Counter[str] = Counter()
    unknown = {}
    for name in file:
        inner = name.removeprefix(root)
        if name.startswith(prefix):
            part = _skipped_part(name.removeprefix(prefix), is_xvlm)
        elif is_xvlm and name.startswith(root) and XVLM_PARTS.fullmatch(inner):
            part = inner.partition(".")[0]
        elif TRAINING_STATE.fullmatch(name):
            part = name.partition(".")[0]
        else:
            part, unknown[name] = None, file.shape(name)
        if part is not None:
            skipped[part] += 1
    return SwinCheckpoint(read_torch(path, prefix), is_xvlm, skipped, unknown)


def open_swin(path: str | PathLike) -> SwinCheckpoint:
    """Opens a file with the weights of a Swin transformer.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or has no Swin transformer.
    """
    checkpoint = find_swin(path)
    if checkpoint is None:
        raise ValueError(
            f"Expected weights of a Swin transformer, with tensors {KEY} and {FIRST_TABLE}. "
            f"Received: {path}, whose tensors start {', '.join(list(read_torch(path))[:3])}"
        )
    return checkpoint


def swin_arguments(checkpoint: SwinCheckpoint) -> dict[str, Any]:
    """Returns the arguments of the `SwinTransformer` that a file's weights fit.

    All but the image size follow from the parameters. It is that of the first attention mask, or,
    without masks, the one at which a window covers the last stage.

    Raises:
        ValueError: a tensor that defines a size is missing, or has another number of axes.
    """
    depths: Counter[int] = Counter()
    for match in map(re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.").match, checkpoint.tensors):
        if match:
            depths[int(match[1])] = max(depths[int(match[1])], int(match[2]) + 1)
    stages = range(max(depths) + 1)
    tables = [checkpoint.shape(f"layers.{stage}.blocks.0.{TABLE}") for stage in stages]
    kernel = checkpoint.shape(KEY)
    if len(kernel) != 4 or any(len(shape) != 2 for shape in tables):
        raise ValueError(
            f"Expected a kernel {KEY} and matrices {TABLE} in {checkpoint.tensors.name}. "
            f"Received: shapes {kernel} and {tables}"
        )
    window_size = window_side(tables[0][0])
    windows = 2 ** (len(stages) - 1)  # per side of the first stage
    mask = "layers.0.blocks.1.attn_mask"
    if mask in checkpoint.tensors:
        count = checkpoint.shape(mask)[0]
        if round(count**0.5) ** 2 == count:  # otherwise of a rectangle, whose sides are not known
            windows = round(count**0.5)
    side = windows * window_size * kernel[2]  # patches are squares
    return {
        "image_size": (side, side),
        "embed_dim": kernel[0],
        "depths": tuple(depths[stage] for stage in stages),
        "num_heads": tuple(shape[1] for shape in tables),
        "window_size": window_size,
        "mean_token": checkpoint.is_xvlm,
    }
