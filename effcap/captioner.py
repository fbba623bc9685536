"""The captioner: an encoder that sees, a GPT-2 that writes, and a tokenizer between it and us."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from effcap import config as variants
from effcap import presets
from effcap.caption import Caption
from effcap.decoders.gpt2 import GPT2
from effcap.encoders.image import ENCODERS
from effcap.generation import Programs
from effcap.images import load_photos
from effcap.losses import CaptionLoss
from effcap.metrics.token_cross_entropy import TokenCrossEntropy
from effcap.samplers import Beam, Samples
from effcap.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from effcap.images import Photo


@keras.saving.register_keras_serializable("effcap")
class Captioner(keras.Model):
    """Writes captions for photos.

    Args:
        encoder: an encoder such as `ImageEncoder`.
        decoder: a `GPT2`.
        tokenizer: a `Tokenizer`; without one the model trains on tokens but writes no text.

    Call arguments:
        inputs: what the encoder takes (for `ImageEncoder`: "images" (B, h, w, 3), pixels 0..255,
            or "features" (B, S, C)) and "tokens" (B, T) int, each row the captions of one photo
            one after the other, with "segments" (B, T) int telling them apart (see `GPT2`).

    Returns:
        logits (B, T, V).

    Example:
        >>> captioner = effcap.Captioner.from_preset("flickr8k-lite0")
        >>> captioner.generate("dog.jpg")
        'A brown dog runs through the grass.'
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: GPT2,
        tokenizer: Tokenizer | None = None,
        name: str = "captioner",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        if tokenizer is not None and tokenizer.vocabulary_size > decoder.vocabulary_size:
            raise ValueError(
                f"Expected a decoder with at least the tokenizer's {tokenizer.vocabulary_size} "
                f"tokens. Received: decoder.vocabulary_size={decoder.vocabulary_size}"
            )
        self.encoder = encoder
        self.decoder = decoder
        self.tokenizer = tokenizer
        self._programs = Programs()
        if not encoder.built:
            encoder.build(None)
        if not decoder.built:
            decoder.build(None, encoder.memory_shapes)
        self.built = True

    def call(self, inputs: dict, training: bool | None = None):
        memory = self.encoder(inputs, training=training)
        return self.decoder(
            inputs["tokens"], memory, inputs.get("segments"), training=training
        )  # (B,T,V)

    def compile(self, optimizer="adamw", loss=None, weighted_metrics=None, **kwargs: Any) -> None:
        """Configures training as `keras.Model.compile` does, with defaults that fit captions.

        Args:
            optimizer: AdamW by default.
            loss: `CaptionLoss()` by default.
            weighted_metrics: by default the cross-entropy per real token, in nats, without label
                smoothing.
        """
        if weighted_metrics is None:
            weighted_metrics = [TokenCrossEntropy()]
        loss = CaptionLoss() if loss is None else loss
        super().compile(optimizer, loss, weighted_metrics=weighted_metrics, **kwargs)
        self._programs.clear()

    def compile_from_config(self, config: dict) -> None:
        """Compiles as saved, so that a loaded `.keras` file trains on from where it stood."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def generate(
        self,
        photos: Photo | Sequence[Photo] | np.ndarray,
        sampler=None,
        details: bool = False,
        batch_size: int = 8,
    ) -> str | list[str] | list[Caption] | list[list[Caption]]:
        """Captions photos.

        Args:
            photos: a photo, a sequence of photos, or a batch (B, h, w, 3). A photo is a path, a
                PIL image, bytes, or an array (h, w, 3) of pixels 0..255.
            sampler: a sampler of `effcap.samplers`; `Beam()` by default.
            details: return scores and tokens as well, and all captions the sampler gives.
            batch_size: photos captioned at once.

        Returns:
            One `str` per photo, or one list of `Caption`, best first, with `details=True`: for a
            single photo just that, for several a list of them.

        Raises:
            UnreadablePhoto: for a photo that is missing or cannot be decoded.
            ValueError: when the captioner has no tokenizer or takes something else than photos.
        """
        if batch_size < 1:
            raise ValueError(
                f"Expected batch_size of at least 1. Received: batch_size={batch_size}"
            )
        single = not isinstance(photos, Sequence | np.ndarray) or isinstance(photos, str | bytes)
        single = single or (isinstance(photos, np.ndarray) and photos.ndim < 4)
        photos = [photos] if single else photos
        if "images" not in self.encoder.input_keys:
            raise ValueError(
                f"{type(self.encoder).__name__} takes {self.encoder.input_keys}, not photos; "
                "call generate_batch with these."
            )
        captions: list[list[Caption]] = []
        for start in range(0, len(photos), batch_size):
            group = photos[start : start + batch_size]
            images = load_photos(group, self.encoder.image_size, self.encoder.fit)
            captions += self.generate_batch({"images": images}, sampler, batch_size)
        results = captions if details else [options[0].text for options in captions]
        return results[0] if single else results

    def generate_batch(
        self, inputs: dict, sampler=None, batch_size: int | None = None
    ) -> list[list[Caption]]:
        """Captions one batch of the encoder's inputs, arrays of B rows.

        Args:
            inputs: what the encoder takes, as NumPy arrays.
            sampler: a sampler of `effcap.samplers`; `Beam()` by default.
            batch_size: a smaller batch is padded up to one of at most this many rows that has
                been compiled before; B by default.

        Returns:
            One list of `Caption` per row, best first.
        """
        if self.tokenizer is None:
            raise ValueError("Expected a captioner with a tokenizer. Received: tokenizer=None")
        rows = len(next(iter(inputs.values())))
        if sampler is None:
            longest = min(Beam().max_tokens, self.decoder.positions)
            sampler = Beam(max_tokens=longest)
        samples = self._programs.run(self, inputs, sampler, batch_size or rows)
        return [self._captions(samples, row) for row in range(rows)]

    def attention(
        self, inputs: dict, captions: Sequence[str | Sequence[int]]
    ) -> tuple[np.ndarray, list[list[np.ndarray]]]:
        """Where each caption looks while it is written.

        Args:
            inputs: what the encoder takes, as arrays of B rows.
            captions: one for each row: a text, or its tokens.

        Returns:
            (tokens, weights): the tokens (B, T) of the captions, with the end of text after them
            to the longest's; and for each layer and each memory of the encoder the shares
            (B, H, T, S) of attention with which that token was chosen.

        Raises:
            ValueError: when the captioner has no tokenizer, or there are more or fewer captions
                than rows.
        """
        if self.tokenizer is None:
            raise ValueError("Expected a captioner with a tokenizer. Received: tokenizer=None")
        rows = len(next(iter(inputs.values())))
        if len(captions) != rows:
            raise ValueError(
                f"Expected a caption for each of {rows} rows. Received: {len(captions)}"
            )
        ids = [
            self.tokenizer.encode(text) if isinstance(text, str) else list(text)
            for text in captions
        ]
        written = np.full((rows, 1 + max(map(len, ids))), self.tokenizer.eos_id, np.int32)  # (B,T)
        for row, tokens in enumerate(ids):
            written[row, : len(tokens)] = tokens
        start = np.full((rows, 1), self.tokenizer.bos_id, np.int32)
        read = np.concatenate([start, written[:, :-1]], axis=1)  # (B,T)
        memory = self.encoder(inputs, training=False)
        _, looks = self.decoder.look(read, memory, training=False)
        return written, [[keras.ops.convert_to_numpy(part) for part in layer] for layer in looks]

    def _captions(self, samples: Samples, row: int) -> list[Caption]:
        options = zip(samples.tokens[row], samples.scores[row], samples.lengths[row], strict=True)
        captions = []
        for tokens, score, length in options:
            ids = tuple(int(token) for token in tokens[:length])
            captions.append(Caption(self.tokenizer.decode(ids).strip(), float(score), ids))
        return captions

    @classmethod
    def from_hparams(
        cls, hparams: str | PathLike | dict, tokenizer: Tokenizer | None = None
    ) -> Captioner:
        """A new captioner with random weights.

        Args:
            hparams: a variant's name, the path of a JSON file like those in hparams/, or its
                contents.
            tokenizer: sets `decoder.vocabulary_size` where hparams leaves it null.

        Raises:
            ValueError: for an unknown variant or hyperparameter.
        """
        hparams = hparams if isinstance(hparams, dict) else variants.load_hparams(hparams)
        return cls(*make_parts(hparams, tokenizer), tokenizer)

    def hparams(self) -> dict:
        """The hyperparameters this captioner was built from, as in a file of hparams/."""
        kind = next(kind for kind, encoder in ENCODERS.items() if type(self.encoder) is encoder)
        return {
            "encoder": {"kind": kind, **self.encoder.get_config()},
            "decoder": self.decoder.get_config(),
        }

    def get_config(self) -> dict:
        tokenizer = None if self.tokenizer is None else self.tokenizer.to_json()
        return {**self.hparams(), "tokenizer": tokenizer, "name": self.name}

    @classmethod
    def from_config(cls, config: dict) -> Captioner:
        text = config.get("tokenizer")
        captioner = cls.from_hparams(config, None if text is None else Tokenizer.from_json(text))
        captioner.name = config.get("name", captioner.name)
        return captioner

    def save_to_preset(self, folder: str | PathLike, dtype: str = "float32") -> None:
        """Writes config.json, model.weights.h5 and tokenizer.json; see `effcap.presets`."""
        presets.save(self, folder, dtype)

    @classmethod
    def from_preset(cls, preset: str | PathLike, hparams: dict | None = None) -> Captioner:
        """The captioner of a preset: a folder, or the name of one that is shipped.

        Args:
            preset: folder or name.
            hparams: in place of the preset's own, such as another dropout.

        Raises:
            FileNotFoundError: where there is none.
            ValueError: for a damaged one.
        """
        return presets.load(cls, preset, hparams)


def make_parts(
    hparams: dict, tokenizer: Tokenizer | None = None
) -> tuple[keras.layers.Layer, GPT2]:
    """(encoder, decoder) by their hyperparameters; the decoder has no weights yet.

    Raises:
        ValueError: as `Captioner.from_hparams`.
    """
    encoder, decoder = variants.model_hparams(hparams, tokenizer)
    kind = encoder.pop("kind", None)
    if kind not in ENCODERS:
        raise ValueError(
            f"Expected an encoder kind out of {sorted(ENCODERS)}. Received: encoder.kind={kind!r}"
        )
    return (
        variants.construct(ENCODERS[kind], encoder, "encoder"),
        variants.construct(GPT2, decoder, "decoder"),
    )
