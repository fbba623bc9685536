"""Writes gpt2_files/: the models of gpt2_reference.npz as `transformers` and PyTorch store them.

pip install torch==2.13.0 transformers==5.23.0 safetensors numpy
python tests/data/make_gpt2_files.py

    small/config.json, pytorch_model.bin     the language model's state dict in torch's zip format,
                                             with the causal masks of transformers before 4.31
    odd/config.json, model.safetensors       what `save_pretrained` writes
    odd/pytorch_model.bin                    the bare transformer's in torch's older format
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from make_gpt2_reference import CONFIGS
from transformers import GPT2Config, GPT2LMHeadModel

HERE = Path(__file__).parent


def model(name: str) -> GPT2LMHeadModel:
    """The reference model of that name."""
    with np.load(HERE / "gpt2_reference.npz") as file:
        mark = f"{name}/weights/"
        weights = {k.removeprefix(mark): torch.tensor(file[k]) for k in file if k.startswith(mark)}
    made = GPT2LMHeadModel(GPT2Config(**CONFIGS[name], bos_token_id=0, eos_token_id=0))
    made.transformer.load_state_dict(weights)
    return made


def main() -> None:
    small, odd = model("small"), model("odd")
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
