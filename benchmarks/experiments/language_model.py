"""Trains a GPT-2 on texts alone and saves it in Hugging Face's format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import keras
import numpy as np
from keras import ops

from effcap.decoders.gpt2 import GPT2
from effcap.losses import CaptionLoss
from effcap.tokenizers import Tokenizer
from effcap.trainers import tidy
from effcap.trainers.batching.in_memory import CaptionBatches
from effcap.trainers.batching.prefetch import as_dataset
from effcap.trainers.data.example import Example
from effcap.trainers.options.batches import BatchOptions
from effcap.weights.gpt2.loader import gpt2_variables
from helpers.gpt2_writers import shapes_of, write_folder

TEXTS_PER_ROW = 8


class NoInputs:
    """An `InputLoader` without inputs."""

    can_flip = False
    fingerprint = "texts"

    def load(
        self, indices: np.ndarray, flip: np.ndarray, draws: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Returns no inputs."""
        return {}


class LanguageModel(keras.Model):
    """A decoder without memory.

    Args:
        decoder: decoder to train.
        continuous: whether the texts of a row are one document, as in GPT-2's training. A text
            then attends to those before it, and its positions follow theirs.
    """

    def __init__(self, decoder: GPT2, continuous: bool = False):
        super().__init__()
        self.decoder, self.continuous = decoder, continuous
        decoder.build()
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """Returns logits (B, T, V)."""
        segments = inputs["segments"]  # (B,T)
        if self.continuous:
            segments = ops.minimum(segments, 1)  # (B,T) 0 at padding
        return self.decoder(inputs["tokens"], None, segments, training=training)


def train_language_model(
    texts: Sequence[str],
    decoder: dict[str, Any],
    folder: Path,
    epochs: int = 1,
    continuous: bool = False,
) -> None:
    """Trains a tokenizer and a decoder, and writes both to a folder.

    Args:
        texts: training texts.
        decoder: the decoder's hyperparameters.
        folder: folder for tokenizer.json, config.json and model.safetensors.
        epochs: passes over the texts.
        continuous: as in `LanguageModel`. A prefix moves a caption to later positions, which a
            decoder that is frozen must know.
    """
    texts = [tidy(text) for text in texts if text.strip()]
    tokenizer = Tokenizer.train(texts, decoder["vocabulary_size"])
    keras.utils.set_random_seed(0)
    arguments = {name: value for name, value in decoder.items() if name != "kind"}
    model = LanguageModel(GPT2(**arguments | {"fusion": None}), continuous)
    rows = [
        Example(Path(str(start)), tuple(texts[start : start + TEXTS_PER_ROW]))
        for start in range(0, len(texts), TEXTS_PER_ROW)
    ]
    batches = CaptionBatches(
        rows, NoInputs(), tokenizer, decoder["max_sequence_length"], BatchOptions(batch_size=16)
    )
    steps = epochs * len(batches)
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-5, steps - steps // 10, warmup_target=1e-3, warmup_steps=steps // 10
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.01, global_clipnorm=1.0)
    model.compile(optimizer, CaptionLoss(), jit_compile=keras.backend.backend() == "jax")
    for epoch in range(epochs):
        batches.start_epoch(epoch)
        model.fit(as_dataset(batches), epochs=epoch + 1, initial_epoch=epoch, shuffle=False)
    config = {
        "vocab_size": decoder["vocabulary_size"],
        "n_positions": decoder["max_sequence_length"],
        "n_embd": decoder["hidden_dim"],
        "n_head": decoder["num_heads"],
        "n_layer": decoder["num_layers"],
    }
    values = gpt2_variables(model.decoder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder / "tokenizer.json")
    write_folder(
        "safetensors",
        folder,
        config,
        shapes_of(config),
        lambda name: keras.ops.convert_to_numpy(values[name]),
    )
