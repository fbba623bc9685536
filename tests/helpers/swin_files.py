"""Networks and files of `tests/data/swin_reference.npz`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from helpers.torch_writer import checkpoint

REFERENCE = Path(__file__).resolve().parents[1] / "data" / "swin_reference.npz"


def reference(case: str) -> dict[str, Any]:
    """Returns the arguments, the weights, the images and the outputs of one implementation."""
    with np.load(REFERENCE) as file:
        arrays = {name.removeprefix(f"{case}/"): file[name] for name in file if case in name}
    weights = {
        name.removeprefix("weights/"): array
        for name, array in arrays.items()
        if name.startswith("weights/")
    }
    return {**arrays, "config": json.loads(str(arrays["config"])), "weights": weights}


def write_swin(path: Path, weights: dict[str, np.ndarray], **extra: np.ndarray) -> Path:
    """Writes the original's file, with the buffers and the classifier that it has."""
    tensors = {**weights, **_buffers(weights), "head.weight": np.zeros((5, 16), np.float32)}
    path.write_bytes(checkpoint({"model": tensors | extra}))
    return path


def write_xvlm(path: Path, weights: dict[str, np.ndarray], **extra: np.ndarray) -> Path:
    """Writes a training checkpoint of X-VLM, with a few tensors of each other part."""
    vision = {f"vision_encoder.{name}": a for name, a in (weights | _buffers(weights)).items()}
    row = np.ones(3, np.float32)
    text = ("embeddings.word_embeddings.weight", "encoder.layer.0.output.dense.bias")
    others = {f"text_encoder.bert.{name}": row for name in text}
    for name in ("vision_proj.weight", "text_proj.bias", "itm_head.0.weight", "bbox_head.3.bias"):
        others[name] = row
    others["temp"] = np.array(0.07, np.float32)
    content = {
        "model": vision | others | extra,
        "optimizer": {"state": {"0": {"exp_avg": row}}},
        "config": {"image_res": 224},
        "epoch": 3,
    }
    path.write_bytes(checkpoint(content))
    return path


def _buffers(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the buffers of the first two blocks, with windows of the size of the tables."""
    table = weights["layers.0.blocks.0.attn.relative_position_bias_table"]
    tokens = ((round(len(table) ** 0.5) + 1) // 2) ** 2
    index = np.zeros((tokens, tokens), np.int64)
    buffers = {f"layers.0.blocks.{i}.attn.relative_position_index": index for i in (0, 1)}
    return buffers | {"layers.0.blocks.1.attn_mask": np.zeros((4, tokens, tokens), np.float32)}
