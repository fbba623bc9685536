"""A GPT-2 trained on texts alone, in the format of Hugging Face's, to stand in for GPT-2's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from helpers.gpt2_writers import shapes_of, write_folder

from effcap.decoders.gpt2 import GPT2
from effcap.losses import CaptionLoss
from effcap.tokenizers.tokenizer import Tokenizer
from effcap.trainers import tidy
from effcap.trainers.batching.in_memory import CaptionBatches
from effcap.trainers.batching.prefetch import feed
from effcap.trainers.data.example import CaptionedPhoto
from effcap.weights.gpt2.loader import pretrained_by_name

TOGETHER = 8  # texts in a row


class NoInputs:
    """A source of nothing: the texts are all there is."""

    mirrored = False
    fingerprint = "texts"

    def load(self, photos, mirror, draws=None) -> dict[str, np.ndarray]:
        return {}


class LanguageModel(keras.Model):
    """A decoder without memory."""

    def __init__(self, decoder: GPT2):
        super().__init__()
        self.decoder = decoder
        decoder.build()
        self.built = True

    def call(self, inputs, training=None):
        return self.decoder(inputs["tokens"], None, inputs["segments"], training=training)


def train_language_model(
    texts: Sequence[str], sizes: dict[str, Any], folder: Path, epochs: int = 1
) -> None:
    """Trains a tokenizer and a decoder of these sizes, and writes both into a folder."""
    texts = [tidy(text) for text in texts if text.strip()]
    tokenizer = Tokenizer.train(texts, sizes["vocabulary_size"])
    keras.utils.set_random_seed(0)
    model = LanguageModel(GPT2(**sizes | {"fusion": None}))
    rows = [
        CaptionedPhoto(Path(str(start)), tuple(texts[start : start + TOGETHER]))
        for start in range(0, len(texts), TOGETHER)
    ]
    batches = CaptionBatches(
        rows, NoInputs(), tokenizer, sizes["positions"], batch_size=16, shuffle=True
    )
    steps = epochs * len(batches)
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-5, steps - steps // 10, warmup_target=1e-3, warmup_steps=steps // 10
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.01, global_clipnorm=1.0)
    model.compile(optimizer, CaptionLoss(), jit_compile=keras.backend.backend() == "jax")
    for epoch in range(epochs):
        batches.start_epoch(epoch)
        model.fit(feed(batches), epochs=epoch + 1, initial_epoch=epoch, shuffle=False)
    config = {
        "vocab_size": sizes["vocabulary_size"],
        "n_positions": sizes["positions"],
        "n_embd": sizes["width"],
        "n_head": sizes["heads"],
        "n_layer": sizes["layers"],
    }
    values = pretrained_by_name(model.decoder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder / "tokenizer.json")
    write_folder(
        "safetensors",
        folder,
        config,
        shapes_of(config),
        lambda name: keras.ops.convert_to_numpy(values[name]),
    )
