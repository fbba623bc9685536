"""Writes the references of test_vit.py: tiny models of transformers with random weights.

    pip install torch==2.14.0 transformers==5.24.0
    python tests/data/make_vit_reference.py

vit_reference.npz has the arrays of three models, "vit" (`ViTModel`), "blip" (`BlipVisionModel`) and
"vit_gpt2" (`VisionEncoderDecoderModel` whose decoder is wider than its encoder):

    NAME/images: (2, h, w, 3) uint8;
    NAME/tokens: (2, S, D), the last hidden state after the last layer norm;
    NAME/wide: (2, h, 2 * w, 3) uint8 and NAME/wide_tokens, the same with interpolated positions;
    NAME/weights/TENSOR: the tensors as `save_pretrained` stores them, in float16;
    vit_gpt2/text: (2, T) int, vit_gpt2/logits: (2, T, V), and
    vit_gpt2/greedy: (2, 11) int, the generated tokens, which start with token 0.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import (
    BlipVisionConfig,
    BlipVisionModel,
    GPT2Config,
    PreTrainedModel,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTModel,
)

FOLDER = Path(__file__).parent
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STDDEV = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
VOCABULARY_SIZE = 50


def randomize(model: PreTrainedModel) -> PreTrainedModel:
    """Sets random weights that float16 represents."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            value = noise * 1.5 / max(tensor[0].numel(), tensor.shape[0]) ** 0.5
        elif "norm" in name.lower() or "ln_" in name:
            value = 0.3 * noise + name.endswith("weight")
        else:
            value = 0.3 * noise
        tensor.copy_(value.half().float())
    return model.eval()


def saved_weights(model: PreTrainedModel) -> dict[str, np.ndarray]:
    """Returns the tensors as `save_pretrained` stores them, in float16."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tensors = load_file(Path(folder) / "model.safetensors")
    return {f"weights/{name}": array.astype(np.float16) for name, array in tensors.items()}


def photos(width: int) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (2, 32, width, 3), np.uint8)


def preprocess(images: np.ndarray, mean: tuple, stddev: tuple) -> torch.Tensor:
    """Returns pixels (B, 3, h, w) of images (B, h, w, 3) uint8."""
    pixels = (torch.from_numpy(images) / 255 - torch.tensor(mean)) / torch.tensor(stddev)
    return pixels.permute(0, 3, 1, 2)


def vision(model: PreTrainedModel, mean: tuple, stddev: tuple) -> dict[str, np.ndarray]:
    """Returns the arrays of an image tower."""
    images, wide = photos(32), photos(64)
    tokens = model(preprocess(images, mean, stddev)).last_hidden_state
    wide_tokens = model(preprocess(wide, mean, stddev), interpolate_pos_encoding=True)
    return {
        "images": images,
        "tokens": tokens.numpy(),
        "wide": wide,
        "wide_tokens": wide_tokens.last_hidden_state.numpy(),
        **saved_weights(model),
    }


def vit_gpt2_model() -> VisionEncoderDecoderModel:
    decoder = GPT2Config(
        vocab_size=VOCABULARY_SIZE,
        n_positions=16,
        n_embd=24,
        n_layer=2,
        n_head=4,
        add_cross_attention=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**SIZES), decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 0, 1, 1
    return randomize(VisionEncoderDecoderModel(config))


def vit_gpt2() -> dict[str, np.ndarray]:
    model, images = vit_gpt2_model(), photos(32)
    pixels = preprocess(images, HALF, HALF)
    text = torch.randint(0, VOCABULARY_SIZE, (2, 9), generator=torch.Generator().manual_seed(2))
    greedy = model.generate(
        pixels, max_new_tokens=10, min_new_tokens=10, num_beams=1, do_sample=False
    )
    return {
        "images": images,
        "tokens": model.encoder(pixels).last_hidden_state.numpy(),
        "text": text.numpy(),
        "logits": model(pixels, decoder_input_ids=text).logits.numpy(),
        "greedy": greedy.numpy(),
        **saved_weights(model),
    }


if __name__ == "__main__":
    with torch.no_grad():
        arrays = {
            "vit": vision(randomize(ViTModel(ViTConfig(**SIZES))), HALF, HALF),
            "blip": vision(
                randomize(BlipVisionModel(BlipVisionConfig(**SIZES))), CLIP_MEAN, CLIP_STDDEV
            ),
            "vit_gpt2": vit_gpt2(),
        }
    np.savez_compressed(
        FOLDER / "vit_reference.npz",
        **{f"{model}/{name}": x for model, named in arrays.items() for name, x in named.items()},
    )
