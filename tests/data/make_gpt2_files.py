"""Writes gpt2_files/: the models of gpt2_reference.npz in the files of `transformers` and PyTorch.

pip install torch==2.13.0 transformers==5.23.0 safetensors numpy
python tests/data/make_gpt2_files.py

    small/config.json, pytorch_model.bin     the language model's state dict in torch's zip format,
                                             with the causal masks of transformers before 4.31
    odd/config.json, model.safetensors       files of `save_pretrained`
    odd/pytorch_model.bin                    the transformer without head in torch's older format
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from make_gpt2_reference import CONFIGS
from transformers import GPT2Config, GPT2LMHeadModel

HERE = Path(__file__).parent


def load_model(name: str) -> GPT2LMHeadModel:
    """Returns a reference model."""
    with np.load(HERE / "gpt2_reference.npz") as file:
        prefix = f"{name}/weights/"
        weights = {
            key.removeprefix(prefix): torch.tensor(file[key])
            for key in file
            if key.startswith(prefix)
        }
    model = GPT2LMHeadModel(GPT2Config(**CONFIGS[name], bos_token_id=0, eos_token_id=0))
    model.transformer.load_state_dict(weights)
    return model


def main() -> None:
    """Writes all files."""
    small, odd = load_model("small"), load_model("odd")
    folder = HERE / "gpt2_files"
    small.config.save_pretrained(folder / "small")
    weights = small.state_dict()
    positions = small.config.n_positions
    for i in range(small.config.n_layer):
        mask = torch.ones(positions, positions, dtype=torch.uint8).tril()
        weights[f"transformer.h.{i}.attn.bias"] = mask[None, None]
        weights[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(weights, folder / "small" / "pytorch_model.bin")
    odd.save_pretrained(folder / "odd")
    (folder / "odd" / "generation_config.json").unlink()
    torch.save(
        odd.transformer.state_dict(),
        folder / "odd" / "pytorch_model.bin",
        _use_new_zipfile_serialization=False,
    )


if __name__ == "__main__":
    main()
