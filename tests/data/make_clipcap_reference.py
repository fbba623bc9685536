"""Writes the reference of test_clipcap_weights.py: tiny ClipCaps with random weights.

    pip install torch==2.14.1 transformers==5.24.0
    python tests/data/make_clipcap_reference.py

clipcap_reference.npz has, for the mappers "mlp" and "transformer", computed from the image vectors
of clip_hugging_face.npz,
    KIND/weights/NAME: the state dict, in float16, by the names of the published files;
    KIND/prefix: (2, P, D);
    KIND/tokens: (2, T) random tokens;
    KIND/logits: (2, 1 + T, V), the first from the last position of the prefix;
    KIND/greedy/ROW: tokens chosen by the highest logit until the full stop, or 67.

The transformer takes normalized vectors and the MLP does not, as in the original's notebooks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

FOLDER = Path(__file__).parent
VOCABULARY, WIDTH, HEADS, LAYERS, POSITIONS = 280, 32, 4, 2, 80
PREFIX, CLIP_LENGTH, MAPPER_LAYERS, MAPPER_HEADS = 3, 2, 2, 8
STOP, MAX_TOKENS = 13, 67


class Attention(nn.Module):
    """Self-attention whose queries, keys and values have no biases."""

    def __init__(self) -> None:
        super().__init__()
        self.to_queries = nn.Linear(WIDTH, WIDTH, bias=False)
        self.to_keys_values = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.project = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        size = WIDTH // MAPPER_HEADS
        queries = self.to_queries(x).view(batch, length, MAPPER_HEADS, size).transpose(1, 2)
        both = self.to_keys_values(x).view(batch, length, 2, MAPPER_HEADS, size)
        keys, values = both.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(queries, keys, values)
        return self.project(mixed.transpose(1, 2).reshape(batch, length, WIDTH))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = Attention()
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(WIDTH, 2 * WIDTH), "fc2": nn.Linear(2 * WIDTH, WIDTH)}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](torch.relu(self.mlp["fc1"](self.norm2(x))))


class TransformerMapper(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, CLIP_LENGTH * WIDTH)
        self.prefix_const = nn.Parameter(torch.zeros(PREFIX, WIDTH))
        self.transformer = nn.ModuleDict(
            {"layers": nn.ModuleList(Block() for _ in range(MAPPER_LAYERS))}
        )

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        x = self.linear(vectors).view(len(vectors), CLIP_LENGTH, WIDTH)
        x = torch.cat([x, self.prefix_const.expand(len(vectors), -1, -1)], dim=1)
        for layer in self.transformer["layers"]:
            x = layer(x)
        return x[:, CLIP_LENGTH:]


class MlpMapper(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = PREFIX * WIDTH // 2
        layers = [nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, PREFIX * WIDTH)]
        self.model = nn.Sequential(*layers)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.model(vectors).view(len(vectors), PREFIX, WIDTH)


class ClipCap(nn.Module):
    def __init__(self, mapper: nn.Module) -> None:
        super().__init__()
        self.clip_project = mapper
        self.gpt = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_positions=POSITIONS,
                n_embd=WIDTH,
                n_layer=LAYERS,
                n_head=HEADS,
                attn_implementation="eager",
            )
        )

    def logits(self, prefix: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        words = self.gpt.transformer.wte(tokens)
        inputs = torch.cat([prefix, words], dim=1)
        return self.gpt(inputs_embeds=inputs).logits[:, PREFIX - 1 :]

    def greedy(self, prefix: torch.Tensor) -> list[int]:
        tokens: list[int] = []
        while len(tokens) < MAX_TOKENS and (not tokens or tokens[-1] != STOP):
            ids = torch.tensor([tokens], dtype=torch.long)
            tokens.append(int(self.logits(prefix, ids)[0, -1].argmax()))
        return tokens


def randomize(model: nn.Module, seed: int) -> None:
    """Sets random weights that float16 represents."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.named_parameters():
        noise = torch.randn(tensor.shape, generator=generator)
        if "norm" in name or "ln_" in name:
            value = 0.2 * noise + name.endswith("weight")
        elif tensor.ndim == 1:
            value = 0.2 * noise
        elif "wte" in name or "wpe" in name:
            value = 0.3 * noise
        else:
            value = noise * 1.5 / max(tensor.shape) ** 0.5
        tensor.data.copy_(value.half().float())


def main() -> None:
    with np.load(FOLDER / "clip_hugging_face.npz") as file:
        vectors = torch.from_numpy(file["embedding"].astype(np.float32))
    arrays: dict[str, Any] = {}
    for kind, make in (("mlp", MlpMapper), ("transformer", TransformerMapper)):
        model = ClipCap(make(vectors.shape[1])).eval()
        inputs = vectors if kind == "mlp" else vectors / vectors.norm(dim=-1, keepdim=True)
        for seed in range(100):  # until both captions end with a full stop
            randomize(model, seed)
            model.gpt.transformer.wte.weight.data[STOP] *= 2  # makes it likely or very unlikely
            prefix = model.clip_project(inputs)
            greedy = [model.greedy(prefix[row : row + 1]) for row in range(2)]
            if all(2 < len(ids) < MAX_TOKENS for ids in greedy):
                break
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(0, VOCABULARY, (2, 6), generator=generator)
        arrays |= {
            f"{kind}/weights/{name}": value.half().numpy()
            for name, value in model.state_dict().items()
        }
        arrays[f"{kind}/prefix"] = prefix.numpy()
        arrays[f"{kind}/tokens"] = tokens.numpy().astype(np.int32)
        arrays[f"{kind}/logits"] = model.logits(prefix, tokens).numpy()
        for row, ids in enumerate(greedy):
            arrays[f"{kind}/greedy/{row}"] = np.array(ids, np.int32)
        print(kind, seed, greedy)
    np.savez_compressed(FOLDER / "clipcap_reference.npz", **arrays)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        main()
