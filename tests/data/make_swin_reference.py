"""Writes swin_reference.npz: outputs of other implementations of Swin with random weights.

    pip install torch==2.14.1 transformers==5.24.0 timm==1.0.31 scipy==1.13.1
    python tests/data/make_swin_reference.py

The file holds, by name:
    transformers/*: a SwinModel whose patches, windows and merging all need padding;
    timm/*: a SwinTransformer where nothing does.
Each has `config` (JSON, arguments of our class), `weights/NAME` with the names and shapes of the
original Swin, `images` (B, h, w, 3) float32, `tokens` (B, S, C) and `mean` (B, C). Then
    bias/S: random tables (S * S, H) of relative position biases, and
    bias/S/D: the same as tables (D * D, H), interpolated by scipy.interpolate.interp2d as in X-VLM.
        SciPy 1.14 has removed that function.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import numpy as np
import timm.models.swin_transformer
import torch
import transformers
from scipy import interpolate

Weights = dict[str, np.ndarray]
HF_NAMES = {  # transformers' names to the original's
    r"^embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"^embeddings\.norm\.": "patch_embed.norm.",
    r"^encoder\.": "",
    r"^layernorm\.": "norm.",
    r"\.layernorm_before\.": ".norm1.",
    r"\.layernorm_after\.": ".norm2.",
    r"\.attention\.o_proj\.": ".attn.proj.",
    r"\.attention\.relative_position_bias\.": ".attn.",
    r"\.attention\.": ".attn.",
}


def randomize(model: torch.nn.Module) -> None:
    """Sets weights with which every part of the model shows in the output."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.normal_()
            if tensor.ndim == 1:
                tensor.mul_(0.3).add_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            elif "relative_position" not in name:
                tensor.mul_(tensor[0].numel() ** -0.5)


def transformers_case(config: dict, images: torch.Tensor) -> dict[str, np.ndarray]:
    """Returns weights and outputs of a SwinModel of transformers."""
    model = transformers.SwinModel(
        transformers.SwinConfig(
            image_size=list(config["image_size"]),
            patch_size=4,
            embed_dim=config["embed_dim"],
            depths=config["depths"],
            num_heads=config["num_heads"],
            window_size=config["window_size"],
            mlp_ratio=4,
            drop_path_rate=0.0,
        )
    ).eval()
    randomize(model)
    weights: Weights = {}
    for name, tensor in model.named_parameters():
        for pattern, replacement in HF_NAMES.items():
            name = re.sub(pattern, replacement, name)
        weights[name] = tensor.detach().numpy()
    for name in [name for name in weights if ".attn.q_proj." in name]:
        parts = [weights.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        weights[name.replace("q_proj", "qkv")] = np.concatenate(parts)
    with torch.no_grad():
        outputs = model(pixel_values=images)
    return case(config, images, weights, outputs.last_hidden_state, outputs.pooler_output)


def timm_case(config: dict, images: torch.Tensor) -> dict[str, np.ndarray]:
    """Returns weights and outputs of a SwinTransformer of timm."""
    model = timm.models.swin_transformer.SwinTransformer(
        img_size=tuple(config["image_size"]),
        embed_dim=config["embed_dim"],
        depths=config["depths"],
        num_heads=config["num_heads"],
        window_size=config["window_size"],
        num_classes=0,
        drop_path_rate=0.0,
    ).eval()
    randomize(model)

    def original(name: str) -> str:  # timm merges patches before a stage, the original after it
        match = re.match(r"layers\.(\d+)\.downsample", name)
        return f"layers.{int(match[1]) - 1}{name[len('layers.0') :]}" if match else name

    weights = {original(n): tensor.detach().numpy() for n, tensor in model.named_parameters()}
    with torch.no_grad():
        grid = model.forward_features(images)  # (B, h, w, C)
    tokens = grid.flatten(1, 2)
    return case(config, images, weights, tokens, tokens.mean(1))


def case(
    config: dict,
    images: torch.Tensor,
    weights: Weights,
    tokens: torch.Tensor,
    mean: torch.Tensor,
) -> dict[str, np.ndarray]:
    """Returns the arrays of one case."""
    arrays = {f"weights/{name}": array for name, array in weights.items()}
    return arrays | {
        "config": np.array(json.dumps(config)),
        "images": images.permute(0, 2, 3, 1).numpy(),
        "tokens": tokens.numpy(),
        "mean": mean.numpy(),
    }


def interpolated(table: np.ndarray, num_positions: int) -> np.ndarray:
    """Interpolates a table (S, H) to D positions as X-VLM does: on a grid that widens outwards."""
    source, target = round(len(table) ** 0.5), round(num_positions**0.5)
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio ** (source // 2)) / (1 - ratio) > target // 2:
            high = ratio
        else:
            low = ratio
    outwards = np.cumsum([ratio**i for i in range(source // 2)])
    old = [*-outwards[::-1], 0, *outwards]
    new = np.arange(-(target // 2), target // 2 + 0.1)
    heads = []
    for head in table.T:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            spline = interpolate.interp2d(old, old, head.reshape(source, source), kind="cubic")
            heads.append(spline(new, new).astype(np.float32).ravel())
    return np.stack(heads, axis=-1)


if __name__ == "__main__":
    sizes = {"embed_dim": 8, "depths": [2, 2, 1], "num_heads": [1, 2, 4]}
    padded = {"image_size": [50, 71], "window_size": 3, **sizes}
    sizes = {"embed_dim": 8, "depths": [3, 2], "num_heads": [2, 4]}
    even = {"image_size": [56, 56], "window_size": 7, **sizes}
    torch.manual_seed(1)
    cases = {
        "transformers": transformers_case(padded, torch.randn(1, 3, 50, 71)),
        "timm": timm_case(even, torch.randn(1, 3, 56, 56)),
    }
    arrays = {f"{name}/{key}": a for name, values in cases.items() for key, a in values.items()}
    rng = np.random.default_rng(0)
    for source, targets in ((13, (23, 29)), (23, (13,)), (5, (7,))):
        table = rng.normal(size=(source**2, 2)).astype(np.float32)
        arrays[f"bias/{source}"] = table
        for target in targets:
            arrays[f"bias/{source}/{target}"] = interpolated(table, target**2)
    np.savez_compressed(Path(__file__).with_name("swin_reference.npz"), **arrays)
