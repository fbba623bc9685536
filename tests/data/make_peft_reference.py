"""Writes the references of test_peft.py: adapters of PEFT on tiny models of transformers.

    pip install torch==2.14.0 transformers==5.24.0 peft==0.21.2
    python tests/data/make_peft_reference.py
    python tests/data/make_peft_reference.py --check FOLDER

The models are those of make_vit_reference.py ("vit_gpt2") and make_bert_reference.py ("blip").
peft_files/NAME/ is an adapter as PEFT saves it, with random A and B, and peft_reference.npz has
NAME/logits: (2, T, V), the logits with the adapter for the images and the text of the model.

With --check, the folder holds adapters that EffCap saved as FOLDER/MODEL-NAME, each with
logits.npy; PEFT loads them, and the largest difference of the logits is printed.
"""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from make_bert_reference import blip_model
from make_vit_reference import CLIP_MEAN, CLIP_STDDEV, HALF, photos, preprocess, vit_gpt2_model
from peft import LoraConfig, PeftModel, get_peft_model

FOLDER = Path(__file__).parent
ADAPTERS = {
    "vit_gpt2-published": {"r": 4, "lora_alpha": 6, "target_modules": ["c_attn", "c_fc"]},
    "vit_gpt2-patterns": {
        "r": 2,
        "lora_alpha": 4,
        "use_rslora": True,
        "target_modules": ["q_proj", "v_proj", "fc1", "c_proj", "q_attn", "enc_to_dec_proj"],
        "rank_pattern": {"crossattention.c_proj": 3, r"h\.1\.mlp\.c_proj": 5},
        "alpha_pattern": {"q_proj": 7, "q_attn": 1},
    },
    "vit_gpt2-head": {"r": 2, "lora_alpha": 3, "target_modules": ["lm_head"], "bias": "lora_only"},
    "blip-published": {"r": 2, "lora_alpha": 4, "target_modules": ["query", "value"]},
    "blip-biases": {
        "r": 3,
        "lora_alpha": 2,
        "bias": "lora_only",
        "target_modules": ["key", "qkv", "output.dense", "decoder"],
    },
    "blip-regex": {
        "r": 2,
        "lora_alpha": 5,
        "lora_bias": True,
        "target_modules": r".*(crossattention\.self\.(key|value)|mlp\.fc2|transform\.dense)",
        "exclude_modules": ["vision_model.encoder.layers.0.mlp.fc2"],
    },
    "blip-layers": {
        "init_lora_weights": "gaussian",
        "r": 2,
        "lora_alpha": 5,
        "target_modules": ["query", "key", "value", "projection", "intermediate.dense"],
        "layers_to_transform": [1],
    },
    "blip-all-linear": {"r": 2, "lora_alpha": 5, "target_modules": "all-linear"},
}
MODELS = {"vit_gpt2": (vit_gpt2_model, HALF, HALF), "blip": (blip_model, CLIP_MEAN, CLIP_STDDEV)}


def logits(name: str, model: torch.nn.Module) -> np.ndarray:
    """Returns the logits (2, T, V) of the text of a model's reference."""
    _, mean, stddev = MODELS[name]
    generator = torch.Generator().manual_seed(2)
    pixels = preprocess(photos(32), mean, stddev)
    if name == "vit_gpt2":
        text = torch.randint(0, 50, (2, 9), generator=generator)
        return model(pixel_values=pixels, decoder_input_ids=text).logits.numpy()
    text = torch.randint(1, 50, (2, 9), generator=generator)
    memory = model.base_model.model.vision_model(pixels).last_hidden_state
    decoder = model.base_model.model.text_decoder
    return decoder(text, encoder_hidden_states=memory).logits.numpy()


def make(name: str) -> np.ndarray:
    """Saves an adapter with random weights, and returns the logits with it."""
    model_name = name.partition("-")[0]
    model = get_peft_model(MODELS[model_name][0](), LoraConfig(**ADAPTERS[name])).eval()
    generator = torch.Generator().manual_seed(4)
    for key, tensor in model.named_parameters():
        if tensor.requires_grad:
            noise = 0.3 * torch.randn(tensor.shape, generator=generator)
            tensor.copy_((tensor if "base_layer" in key else 0) + noise)
    folder = FOLDER / "peft_files" / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    return logits(model_name, model)


def check(folder: Path) -> None:
    """Loads the adapters that EffCap saved, and prints how much the logits differ."""
    for adapter in sorted(path for path in folder.iterdir() if path.is_dir()):
        name = adapter.name.partition("-")[0]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = PeftModel.from_pretrained(MODELS[name][0](), adapter).eval()
        differences = np.abs(logits(name, model) - np.load(adapter / "logits.npy"))
        print(f"{adapter.name}: {differences.max():.1e}", *(f"  {w.message}" for w in caught))


if __name__ == "__main__":
    with torch.no_grad():
        if sys.argv[1:2] == ["--check"]:
            check(Path(sys.argv[2]))
        else:
            arrays = {f"{name}/logits": make(name) for name in ADAPTERS}
            np.savez_compressed(FOLDER / "peft_reference.npz", **arrays)
