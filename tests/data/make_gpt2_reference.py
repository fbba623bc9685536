"""Writes gpt2_reference.npz: tiny random GPT-2 models of `transformers` with inputs and logits.

pip install torch transformers numpy
python tests/data/make_gpt2_reference.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

CONFIGS = {
    "small": {"vocab_size": 60, "n_positions": 20, "n_embd": 24, "n_head": 3, "n_layer": 2},
    # The MLP is not four times as wide, and there are more positions than tokens.
    "odd": {
        "vocab_size": 31,
        "n_positions": 50,
        "n_embd": 16,
        "n_head": 4,
        "n_layer": 3,
        "n_inner": 40,
    },
}


def main() -> None:
    """Writes the file."""
    arrays = {}
    for number, (name, config) in enumerate(CONFIGS.items()):
        torch.manual_seed(number)
        model = GPT2LMHeadModel(GPT2Config(**config, bos_token_id=0, eos_token_id=0)).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # also biases and norms, which start at 0 and 1
                parameter.add_(torch.randn_like(parameter) * 0.2)
            tokens = torch.randint(0, config["vocab_size"], (3, config["n_positions"]))
            logits = model(tokens).logits
        for key, value in config.items():
            arrays[f"{name}/config/{key}"] = np.array(value)
        for key, value in model.transformer.state_dict().items():
            arrays[f"{name}/weights/{key}"] = value.numpy()
        arrays[f"{name}/tokens"] = tokens.numpy().astype(np.int32)
        arrays[f"{name}/logits"] = logits.numpy()
    np.savez_compressed(Path(__file__).with_name("gpt2_reference.npz"), **arrays)


if __name__ == "__main__":
    main()
