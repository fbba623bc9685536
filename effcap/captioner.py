"""The captioner model: an encoder, a decoder and a tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from effcap import presets
from effcap.caption import Caption
from effcap.config import create, load_hparams, merge_hparams, model_hparams
from effcap.decoders.prefix_words import MASKED, nearest_tokens
from effcap.decoders.registry import DECODERS
from effcap.encoders.registry import ENCODERS
from effcap.export import export_signature
from effcap.generation import GenerationCache, check_sampler
from effcap.images import as_photos, load_photos
from effcap.losses import CaptionLoss
from effcap.metrics.token_cross_entropy import TokenCrossEntropy
from effcap.npair import NPairLoss, PrefixedLogits
from effcap.samplers import Hypotheses, Sampler, get
from effcap.token_mean import TokenMeanModel
from effcap.tokenizers import Tokenizer
from effcap.tokenizers.kinds import parse_tokenizer

if TYPE_CHECKING:
    from effcap.decoders.base import Decoder
    from effcap.images import Photo


@keras.saving.register_keras_serializable("effcap")
class Captioner(TokenMeanModel):
    """An image captioner.

    Args:
        encoder: an encoder such as `ImageEncoder`.
        decoder: a decoder such as `GPT2`.
        tokenizer: a `Tokenizer`. Without one, the model trains on tokens but generates no text.

    Call arguments:
        inputs: the encoder's inputs (for `ImageEncoder`: "images" (B, h, w, 3), pixels 0..255, or
            "features" (B, S, C)), and "tokens" (B, T) int, each row the concatenated captions of
            one photo, with "segments" (B, T) int, the number of each token's caption.

    Returns:
        Logits (B, T, V). In training with an `NPairLoss`, `PrefixedLogits`.

    Example:
        >>> captioner = effcap.Captioner.from_preset("flickr8k-lite0")
        >>> captioner.generate("dog.jpg")
        'A brown dog runs through the grass.'
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: Decoder,
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
        self._generation = GenerationCache(encoder, decoder)
        if not encoder.built:
            encoder.build(None)
        if not decoder.built:
            decoder.build(None, encoder.memory_shapes)
        self.built = True

    def call(self, inputs: dict, training: bool | None = None) -> Any:
        memory = self.encoder(inputs, training=training)
        tokens, segments = inputs["tokens"], inputs.get("segments")
        if not training or not isinstance(getattr(self, "loss", None), NPairLoss):
            return self.decoder(tokens, memory, segments, training=training)  # (B,T,V)
        prefix = self.decoder.map_prefix(memory, training=training)
        logits = self.decoder(tokens, prefix, segments, training=training)  # (B,T,V)
        embeddings = self.decoder.embed_tokens(tokens)  # (B,T,D)
        return PrefixedLogits(logits, prefix.values, embeddings, segments)

    def batch_loss(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool = True
    ) -> Any:
        """Computes the loss of a batch, with the n-pair loss if the captioner trains with it."""
        if not isinstance(y_pred, PrefixedLogits):
            return super().batch_loss(x, y, y_pred, sample_weight, training)
        loss = super().batch_loss(x, y, y_pred.logits, sample_weight, training)
        npair = self.loss.npair(y_pred, sample_weight)  # ()
        self.add_to_mean(self.npair_mean, npair, y, sample_weight)
        return loss + self.loss.npair_weight * npair

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict:
        """Updates and returns the metrics, as `keras.Model.compute_metrics` does."""
        logits = y_pred.logits if isinstance(y_pred, PrefixedLogits) else y_pred
        return super().compute_metrics(x, y, logits, sample_weight)

    def compile(
        self,
        optimizer: Any = "adamw",
        loss: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configures training as `keras.Model.compile` does, with defaults for captions.

        The loss and the gradients are means over tokens, also over the batches of `evaluate` and
        over the batches that an optimizer with `gradient_accumulation_steps` accumulates.

        Args:
            optimizer: optimizer or its name. Default AdamW.
            loss: loss. Default `CaptionLoss()`.
            weighted_metrics: metrics weighted by the real tokens. Default `TokenCrossEntropy()`,
                in nats, without label smoothing.
            **kwargs: arguments of `keras.Model.compile`.
        """
        if weighted_metrics is None:
            weighted_metrics = [TokenCrossEntropy()]
        loss = CaptionLoss() if loss is None else loss
        super().compile(optimizer, loss, weighted_metrics=weighted_metrics, **kwargs)
        self._generation.clear()

    def compile_from_config(self, config: dict) -> None:
        """Compiles as saved, so that a loaded `.keras` file continues training."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def generate(
        self,
        photos: Photo | Iterable[Photo],
        sampler: str | Sampler | type[Sampler] = "beam",
        *,
        details: bool = False,
        batch_size: int = 8,
    ) -> str | list[str] | list[Caption] | list[list[Caption]]:
        """Generates captions for photos.

        Args:
            photos: a photo, an iterable of photos, or a batch (B, h, w, 3). A photo is a path, a
                PIL image, bytes, or an array or tensor (h, w, 3) of pixels 0..255.
            sampler: "beam", "nucleus", "greedy", or a sampler or sampler class of
                `effcap.samplers`. Default "beam".
            details: return scores and tokens as well, and all captions of the sampler.
            batch_size: photos per batch. Default 8.

        Returns:
            One `str` per photo, or with `details=True` one list of `Caption` per photo, best
            first. For a single photo the `str` or the list itself.

        Raises:
            UnreadablePhoto: a photo is missing or cannot be decoded.
            ValueError: the captioner has no tokenizer, or does not take photos; or its decoder does
                not fit the sampler.
        """
        self._check_photos(batch_size)
        sampler = self._get_sampler(sampler)
        all_photos, is_single = as_photos(photos)
        captions: list[list[Caption]] = []
        for images in self._load_batches(all_photos, batch_size):
            indices = range(len(captions), len(captions) + len(images))
            captions += self.generate_batch({"images": images}, sampler, batch_size, indices)
        results = captions if details else [options[0].text for options in captions]
        return results[0] if is_single else results

    def prefix_words(
        self, photos: Photo | Iterable[Photo], *, batch_size: int = 8
    ) -> list[str | None] | list[list[str | None]]:
        """Returns the vocabulary word that is nearest to each position of a photo's prefix.

        Nearest is the token whose embedding has the highest cosine similarity to the prefix
        embedding, as in ClipCap. The words describe the photo only as far as the language model
        was not trained; a tuned one leaves the prefix no reason to resemble words.

        Args:
            photos: as in `generate`.
            batch_size: photos per batch. Default 8.

        Returns:
            One list of P words per photo, with None at positions that are masked. For a single
            photo the list itself.

        Raises:
            UnreadablePhoto: a photo is missing or cannot be decoded.
            ValueError: the captioner has no tokenizer or no prefix, or does not take photos.
        """
        self._check_photos(batch_size)
        tokenizer, decoder = self._require_tokenizer(), self.decoder
        if not decoder.has_prefix:
            raise ValueError(
                "This captioner has no prefix: its decoder.fusion.kind is not 'prefix'"
            )
        size = min(tokenizer.vocabulary_size, decoder.vocabulary_size)
        table = decoder.embed_tokens(np.arange(size, dtype="int32"))  # (V,D)
        all_photos, is_single = as_photos(photos)
        words: list[list[str | None]] = []
        for images in self._load_batches(all_photos, batch_size):
            memory = self.encoder({"images": images}, training=False)
            rows = nearest_tokens(decoder.map_prefix(memory, training=False), table)  # (B,P)
            words += [
                [None if token == MASKED else _word(tokenizer, int(token)) for token in row]
                for row in rows
            ]
        return words[0] if is_single else words

    def _check_photos(self, batch_size: int) -> None:
        """Checks that the captioner takes photos, and the batch size."""
        if batch_size < 1:
            raise ValueError(
                f"Expected batch_size of at least 1. Received: batch_size={batch_size}"
            )
        if "images" not in self.encoder.input_keys:
            raise ValueError(
                f"{type(self.encoder).__name__} takes {', '.join(self.encoder.input_keys)}, not "
                "photos: call generate_batch with these."
            )

    def _load_batches(self, photos: Iterable[Photo], batch_size: int) -> Iterator[np.ndarray]:
        """Yields photos (B, h, w, 3) as the encoder takes them."""
        stream = iter(photos)
        while batch := list(islice(stream, batch_size)):
            yield load_photos(batch, self.encoder.image_size, self.encoder.fit)

    def generate_batch(
        self,
        inputs: Mapping[str, Any],
        sampler: str | Sampler | type[Sampler] = "beam",
        batch_size: int | None = None,
        indices: Sequence[int] | None = None,
    ) -> list[list[Caption]]:
        """Generates captions for one batch of the encoder's inputs.

        Args:
            inputs: the encoder's inputs, arrays or tensors of B rows.
            sampler: as in `generate`.
            batch_size: maximum size to pad the batch to, if such a size is already compiled.
                Default B.
            indices: index of each row in the whole call, which the random numbers of a `Nucleus`
                sampler with a seed depend on. Default 0 to B - 1.

        Returns:
            One list of `Caption` per row, best first.

        Raises:
            ValueError: the captioner has no tokenizer, the encoder takes other inputs, there is no
                such sampler, or it does not fit the decoder.
        """
        tokenizer = self._require_tokenizer()
        arrays = {name: np.asarray(values) for name, values in inputs.items()}
        lengths = {len(array) for array in arrays.values()}
        if not set(arrays) & set(self.encoder.input_keys) or len(lengths) != 1:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise ValueError(
                f"Expected inputs out of {', '.join(self.encoder.input_keys)}, with one row per "
                f"photo. Received: {shapes or 'no inputs'}"
            )
        (rows,) = lengths
        hypotheses = self._generation.generate(
            arrays, tokenizer, self._get_sampler(sampler), batch_size or rows, indices
        )
        return [_captions(tokenizer, hypotheses, row) for row in range(rows)]

    def _get_sampler(self, sampler: str | Sampler | type[Sampler]) -> Sampler:
        """Returns a sampler that fits the decoder, also from its name or class."""
        tokenizer = self._require_tokenizer()
        if not isinstance(sampler, Sampler):
            longest = min(Sampler().max_new_tokens, self.decoder.max_text_length)
            sampler = get(sampler, max_new_tokens=longest)
        check_sampler(sampler, self.decoder, tokenizer)
        return sampler

    def attention(
        self, inputs: dict, captions: Sequence[str | Sequence[int]]
    ) -> tuple[np.ndarray, list[list[np.ndarray]]]:
        """Computes the attention weights on memory for given captions.

        Args:
            inputs: the encoder's inputs, arrays of B rows.
            captions: a caption for each row, as text or tokens.

        Returns:
            The tokens (B, T) of the captions, padded with the end token, and for each layer
            and each memory the weights (B, H, T, S) at the step that chose each token.

        Raises:
            ValueError: the captioner has no tokenizer, or the number of captions is not B.
        """
        tokenizer = self._require_tokenizer()
        rows = len(next(iter(inputs.values())))
        if len(captions) != rows:
            raise ValueError(
                f"Expected a caption for each of {rows} rows. Received: {len(captions)}"
            )
        ids = [
            tokenizer.encode_captions([caption])[0] if isinstance(caption, str) else list(caption)
            for caption in captions
        ]
        targets = np.full((rows, 1 + max(map(len, ids))), tokenizer.eos_id, np.int32)  # (B,T)
        for row, row_ids in enumerate(ids):
            targets[row, : len(row_ids)] = row_ids
        start = np.full((rows, 1), tokenizer.bos_id, np.int32)  # (B,1)
        tokens = np.concatenate([start, targets[:, :-1]], axis=1)  # (B,T)
        memory = self.encoder(inputs, training=False)
        _, weights = self.decoder.call_with_attention(tokens, memory, training=False)
        return targets, [[keras.ops.convert_to_numpy(w) for w in layer] for layer in weights]

    def _require_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ValueError("This captioner has no tokenizer, so it cannot encode or decode text.")
        return self.tokenizer

    @classmethod
    def from_hparams(
        cls,
        hparams: str | PathLike | Mapping[str, Any],
        tokenizer: Tokenizer | None = None,
        *,
        encoder: Mapping[str, Any] | None = None,
        decoder: Mapping[str, Any] | None = None,
    ) -> Captioner:
        """Creates a captioner with random weights.

        Args:
            hparams: a variant's name, the path of a JSON file like those in hparams/, or its
                contents.
            tokenizer: sets `decoder.vocabulary_size` if it is null in hparams.
            encoder: changed hyperparameters of the encoder.
            decoder: changed hyperparameters of the decoder, such as `{"dropout": 0.2}`.

        Raises:
            FileNotFoundError: there is no such variant or file.
            ValueError: a hyperparameter is unknown, missing or out of range.
        """
        hparams = hparams if isinstance(hparams, Mapping) else load_hparams(hparams)
        overrides = {"encoder": encoder, "decoder": decoder}
        hparams = merge_hparams(hparams, {key: value for key, value in overrides.items() if value})
        return cls(*create_encoder_and_decoder(hparams, tokenizer), tokenizer)

    def hparams(self) -> dict:
        """Returns the hyperparameters of this captioner, as in a file of hparams/."""
        return {
            "encoder": {"kind": _kind(ENCODERS, self.encoder), **self.encoder.get_config()},
            "decoder": {"kind": _kind(DECODERS, self.decoder), **self.decoder.get_config()},
        }

    def get_config(self) -> dict:
        tokenizer = None if self.tokenizer is None else self.tokenizer.to_json()
        return {**self.hparams(), "tokenizer": tokenizer, "name": self.name}

    @classmethod
    def from_config(cls, config: dict) -> Captioner:
        text = config.get("tokenizer")
        hparams = {section: config[section] for section in ("encoder", "decoder")}
        captioner = cls.from_hparams(hparams, None if text is None else parse_tokenizer(text))
        captioner.name = config.get("name", captioner.name)
        return captioner

    def save_to_preset(
        self,
        folder: str | PathLike,
        dtype: str = "float32",
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes config.json, model.weights.h5, tokenizer.json and training.json.

        Args:
            folder: folder of the preset, created if missing. An existing preset is replaced once
                the new one is complete.
            dtype: "float16" stores the weights in half the space. Default "float32".
            record: record of the training, written to training.json.

        Raises:
            OSError: there is too little disk space.
        """
        presets.save_preset(self, folder, self.hparams(), self.tokenizer, dtype, record)

    @classmethod
    def from_preset(
        cls,
        preset: str | PathLike,
        *,
        encoder: Mapping[str, Any] | None = None,
        decoder: Mapping[str, Any] | None = None,
    ) -> Captioner:
        """Loads the captioner of a preset.

        Args:
            preset: a folder, the name of a shipped preset, or a run folder.
            encoder: changed hyperparameters of the encoder, such as another dropout. The weights
                must still fit.
            decoder: changed hyperparameters of the decoder.

        Raises:
            FileNotFoundError: there is no such preset, or a file of it is missing.
            ValueError: a file is damaged, or hyperparameters do not fit the weights.
        """
        folder = presets.preset_folder(preset)
        config = presets.read_config(folder)
        tokenizer = presets.load_tokenizer(folder, config.get("tokenizer_fingerprint"))
        hparams = {section: config[section] for section in ("encoder", "decoder")}
        try:
            captioner = cls.from_hparams(hparams, tokenizer, encoder=encoder, decoder=decoder)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Cannot create the captioner of {folder / presets.CONFIG}: {error}"
            ) from error
        presets.load_weights(captioner, folder / presets.WEIGHTS)
        return captioner

    def export(
        self,
        filepath: str | PathLike,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Exports the logits of given tokens for inference, as `keras.Model.export` does.

        Args:
            filepath: file or folder to write.
            format: a format of Keras, such as "tf_saved_model" (default) or "onnx".
            verbose: print the exported function.
            input_signature: shapes and dtypes of the inputs. Default
                `effcap.export.export_signature(encoder)`.
            **kwargs: arguments of the format.
        """
        if input_signature is None:
            input_signature = export_signature(self.encoder)
        super().export(filepath, format, verbose, input_signature, **kwargs)


def _captions(tokenizer: Tokenizer, hypotheses: Hypotheses, row: int) -> list[Caption]:
    """Decodes the hypotheses of one row of a batch."""
    captions = []
    for tokens, score, length in zip(
        hypotheses.tokens[row], hypotheses.scores[row], hypotheses.lengths[row], strict=True
    ):
        ids = tuple(int(token) for token in tokens[:length])
        end = tokenizer.eos_text if length < len(tokens) else ""
        captions.append(Caption((tokenizer.decode(ids) + end).strip(), float(score), ids))
    return captions


def _word(tokenizer: Tokenizer, token: int) -> str:
    """Returns a token as text, special tokens included."""
    return tokenizer.decode([token], skip_special_tokens=False).strip()


def _kind(kinds: Mapping[str, type], layer: keras.layers.Layer) -> str:
    return next(kind for kind, cls in kinds.items() if type(layer) is cls)


def create_encoder_and_decoder(
    hparams: Mapping[str, Any], tokenizer: Tokenizer | None = None
) -> tuple[keras.layers.Layer, Decoder]:
    """Creates an encoder and an unbuilt decoder from hyperparameters.

    Raises:
        ValueError: as `Captioner.from_hparams`.
    """
    encoder, decoder = model_hparams(dict(hparams), tokenizer)
    widths = {name: decoder[name] for name in ("hidden_dim",) if decoder.get(name) is not None}
    return create("encoder", ENCODERS, encoder, widths), create("decoder", DECODERS, decoder)
