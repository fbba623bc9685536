"""Writes the references of test_captioner_folder.py: tiny captioners of transformers.

    pip install torch==2.14.0 transformers==5.24.0 pillow==13.0.0
    python tests/data/make_captioner_reference.py

captioner_reference.npz has the arrays of the models in MODELS, which have random weights:

    NAME/config and NAME/preprocessor: config.json and preprocessor_config.json;
    NAME/weights/TENSOR: the tensors as `save_pretrained` stores them, in float16;
    NAME/photos: (2, h, w, 3) uint8, and NAME/pixels: (2, H, W, 3) uint8, what the image processor
        resizes them to, with Pillow;
    NAME/tokens: (2, S, D), what the decoder attends to, without a projection;
    NAME/text: (2, T) int and NAME/logits: (2, T, V), the logits of the next tokens;
    NAME/greedy and NAME/beam: (2, up to 12) int, what `generate` returns with the settings in
        GENERATION, with 3 beams for the latter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_vit_reference import randomize, saved_weights
from PIL import Image
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    GPT2Config,
    PreTrainedModel,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

FOLDER = Path(__file__).parent
END = 256  # of the bytes; the vocabulary of ViT and GPT-2 is END + 1
WORDS, STOP = 40, 3  # the vocabulary of BLIP has two more tokens, of which the first starts
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 8}
LARGE = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "patch_size": 4}
GENERATION = {"max_length": 12, "no_repeat_ngram_size": 3, "do_sample": False}


def vit_gpt2(vision: dict[str, Any], decoder: dict[str, Any]) -> VisionEncoderDecoderModel:
    gpt2 = GPT2Config(
        vocab_size=END + 1,
        n_positions=16,
        add_cross_attention=True,
        bos_token_id=END,
        eos_token_id=END,
        **decoder,
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**vision), gpt2)
    config.decoder_start_token_id = config.pad_token_id = config.eos_token_id = END
    return VisionEncoderDecoderModel(config)


def blip(vision: dict[str, Any], text: dict[str, Any]) -> BlipForConditionalGeneration:
    tokens = {"bos_token_id": WORDS, "sep_token_id": STOP, "pad_token_id": 0, "eos_token_id": 2}
    text = {"vocab_size": WORDS + 2, "max_position_embeddings": 16, **tokens, **text}
    return BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))


MODELS = {
    "vit-gpt2": lambda: (
        vit_gpt2(
            {**SMALL, "intermediate_size": 64, "image_size": 32},
            {"n_embd": 16, "n_layer": 2, "n_head": 4},
        ),
        ViTImageProcessorPil(size={"height": 32, "width": 32}),
    ),
    "vit-gpt2-projected": lambda: (
        vit_gpt2(
            {
                **LARGE,
                "intermediate_size": 40,
                "image_size": 20,
                "qkv_bias": False,
                "hidden_act": "gelu_new",
                "layer_norm_eps": 1e-3,
            },
            {
                "n_embd": 16,
                "n_layer": 3,
                "n_head": 2,
                "n_inner": 36,
                "activation_function": "relu",
                "layer_norm_epsilon": 1e-3,
            },
        ),
        ViTImageProcessorPil(
            size={"height": 20, "width": 20}, resample=1, image_mean=[0.4, 0.5, 0.6]
        ),
    ),
    # With the epsilon of the original BLIP.
    "blip": lambda: (
        blip(
            {**SMALL, "intermediate_size": 64, "image_size": 32, "layer_norm_eps": 1e-6},
            {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 64}
            | {"num_attention_heads": 4},
        ),
        BlipImageProcessorPil(size={"height": 32, "width": 32}),
    ),
    "blip-large": lambda: (
        blip(
            {**LARGE, "intermediate_size": 40, "image_size": 24, "hidden_act": "quick_gelu"},
            {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 36}
            | {"hidden_act": "relu", "layer_norm_eps": 1e-3},
        ),
        BlipImageProcessorPil(size={"height": 24, "width": 24}),
    ),
}


def photos() -> list[Image.Image]:
    """Returns two smooth photos."""
    coarse = np.random.default_rng(0).integers(0, 256, (2, 6, 9, 3), np.uint8)
    return [Image.fromarray(array).resize((45, 33), Image.Resampling.BICUBIC) for array in coarse]


def arrays(model: PreTrainedModel, processor: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of a model."""
    pixels = torch.from_numpy(np.stack(processor(photos())["pixel_values"]))
    raw = processor(photos(), do_rescale=False, do_normalize=False)["pixel_values"]
    is_blip = isinstance(model, BlipForConditionalGeneration)
    size = WORDS if is_blip else END + 1
    text = torch.randint(0, size, (2, 9), generator=torch.Generator().manual_seed(2))
    if is_blip:
        memory = model.vision_model(pixels).last_hidden_state
        logits = model.text_decoder(text, encoder_hidden_states=memory).logits
        unused = {"bad_words_ids": [[WORDS], [WORDS + 1]]}
    else:
        memory = model.encoder(pixels).last_hidden_state
        logits = model(pixels, decoder_input_ids=text).logits
        unused = {}
    generated = {
        name: model.generate(
            pixels, num_beams=beams, early_stopping="never" if beams > 1 else False,
            **GENERATION, **unused,
        ).numpy()
        for name, beams in (("greedy", 1), ("beam", 3))
    }  # fmt: skip
    config = model.config.to_diff_dict()
    return {
        "config": np.array(json.dumps(config)),
        "preprocessor": np.array(processor.to_json_string()),
        "photos": np.stack([np.asarray(photo) for photo in photos()]),
        "pixels": np.stack(raw).transpose(0, 2, 3, 1).astype(np.uint8),
        "tokens": memory.numpy(),
        "text": text.numpy(),
        "logits": logits.numpy(),
        **generated,
        **saved_weights(model),
    }


if __name__ == "__main__":
    written = {}
    with torch.no_grad():
        for name, create in MODELS.items():
            torch.manual_seed(0)
            model, processor = create()
            named = arrays(randomize(model), processor)
            written |= {f"{name}/{key}": array for key, array in named.items()}
    np.savez_compressed(FOLDER / "captioner_reference.npz", **written)
