"""Writes the references of test_bert.py: tiny models of transformers with random weights.

    pip install torch==2.14.0 transformers==5.24.0
    python tests/data/make_bert_reference.py

bert_reference.npz has the arrays of two models, "blip" (`BlipForConditionalGeneration`, whose image
tower and BERT have different widths) and "xvlm" (`BertLMHeadModel` with token types and without
cross-attention in its first layer, as in X-VLM):

    NAME/memory: (2, S, C), what the BERT attends to;
    NAME/text: (2, T) int and NAME/logits: (2, T, V), the logits of the next tokens;
    NAME/greedy: (2, 11) int, the generated tokens, which start with token 5;
    NAME/weights/TENSOR: the tensors as `save_pretrained` stores them, in float16;
    blip/images: (2, h, w, 3) uint8, from which the memory is computed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from make_vit_reference import (
    CLIP_MEAN,
    CLIP_STDDEV,
    SIZES,
    photos,
    preprocess,
    randomize,
    saved_weights,
)
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BlipConfig,
    BlipForConditionalGeneration,
    PreTrainedModel,
)

FOLDER = Path(__file__).parent
START = 5
TEXT = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 16,
    "bos_token_id": START,
    "pad_token_id": 0,
}


def decoded(decoder: PreTrainedModel, memory: torch.Tensor) -> dict[str, np.ndarray]:
    """Returns the arrays of a decoder with a memory."""
    text = torch.randint(1, TEXT["vocab_size"], (2, 9), generator=torch.Generator().manual_seed(2))
    greedy = torch.full((2, 1), START)
    for _ in range(10):
        logits = decoder(greedy, encoder_hidden_states=memory).logits[:, -1]
        greedy = torch.cat([greedy, logits.argmax(-1, keepdim=True)], dim=1)
    return {
        "memory": memory.numpy(),
        "text": text.numpy(),
        "logits": decoder(text, encoder_hidden_states=memory).logits.numpy(),
        "greedy": greedy.numpy(),
    }


def blip_model() -> BlipForConditionalGeneration:
    config = BlipConfig(text_config={**TEXT, "sep_token_id": 3}, vision_config=SIZES)
    return randomize(BlipForConditionalGeneration(config))


def blip() -> dict[str, np.ndarray]:
    model, images = blip_model(), photos(32)
    memory = model.vision_model(preprocess(images, CLIP_MEAN, CLIP_STDDEV)).last_hidden_state
    return {"images": images, **decoded(model.text_decoder, memory), **saved_weights(model)}


def xvlm() -> dict[str, np.ndarray]:
    config = BertConfig(**TEXT, type_vocab_size=2, is_decoder=True, add_cross_attention=True)
    model = BertLMHeadModel(config)
    first = model.bert.encoder.layer[0]
    del first.crossattention
    first.is_decoder = False  # of the layer, where it selects cross-attention alone
    randomize(model)
    memory = torch.randn((2, 7, TEXT["hidden_size"]), generator=torch.Generator().manual_seed(3))
    return {**decoded(model, memory), **saved_weights(model)}


if __name__ == "__main__":
    with torch.no_grad():
        arrays = {"blip": blip(), "xvlm": xvlm()}
    np.savez_compressed(
        FOLDER / "bert_reference.npz",
        **{f"{model}/{name}": x for model, named in arrays.items() for name, x in named.items()},
    )
