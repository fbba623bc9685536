"""Writes transformers_shapes.json: the tensors of published captioners, as transformers saves them.

    pip install torch==2.14.0 transformers==5.24.0
    python tests/data/make_transformers_shapes.py

For each model, it lists the shapes by name. "{0-11}" in a name stands for each number of a layer.
Tied tensors are listed twice, as older versions of transformers saved them.
The configurations are those of Salesforce/blip-image-captioning-base and -large and of
nlpconnect/vit-gpt2-image-captioning; the models are created without their weights.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    GPT2Config,
    PreTrainedModel,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)

FOLDER = Path(__file__).parent
LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
}
TEXT = {"num_attention_heads": 12}


def models() -> dict[str, tuple[type, object]]:
    """Returns the class and the configuration of each model."""
    vit_gpt2 = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(), GPT2Config(add_cross_attention=True)
    )
    return {
        "blip-base": (BlipForConditionalGeneration, BlipConfig(text_config=TEXT)),
        "blip-large": (
            BlipForConditionalGeneration,
            BlipConfig(text_config=TEXT, vision_config=LARGE),
        ),
        "vit-gpt2": (VisionEncoderDecoderModel, vit_gpt2),
    }


def saved_shapes(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the tensors as `save_pretrained` stores them, by name."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, max_shard_size="10GB")
        with safe_open(Path(folder) / "model.safetensors", "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def merged(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Returns the shapes with the names of all layers merged into one."""
    numbers = defaultdict(set)
    for name, shape in shapes.items():
        number = re.search(r"\.(\d+)\.", name)
        numbers[re.sub(r"\.\d+\.", ".{}.", name), shape].add(number and int(number.group(1)))
    result = {}
    for (name, shape), found in sorted(numbers.items(), key=str):
        if found != {None}:
            assert found == set(range(len(found))), name
            name = name.format(f"{{0-{len(found) - 1}}}")
        result[name] = shape
    return result


if __name__ == "__main__":
    lines = []
    for title, (model_class, config) in models().items():
        with torch.device("meta"):
            model = model_class(config)
        shapes = saved_shapes(model.half().to_empty(device="cpu"))  # which unties tensors
        named = [f"    {json.dumps(n)}: {json.dumps(s)}" for n, s in merged(shapes).items()]
        lines.append(f'  "{title}": {{\n' + ",\n".join(named) + "\n  }")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (FOLDER / "transformers_shapes.json").write_text(text, encoding="utf-8")
