"""The captioner model: an encoder, a decoder and a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import keras

from effcap import presets
from effcap.captioning import CaptioningModel
from effcap.config import create, load_hparams, merge_hparams, model_hparams
from effcap.decoders.registry import DECODERS
from effcap.encoders.registry import ENCODERS
from effcap.export import export_signature
from effcap.generation import GenerationCache
from effcap.losses import CaptionLoss
from effcap.metrics.token_cross_entropy import TokenCrossEntropy
from effcap.npair import NPairLoss, PrefixedLogits
from effcap.samplers import Sampler
from effcap.samplers.registry import from_config, to_config
from effcap.tokenizers import Tokenizer
from effcap.tokenizers.kinds import parse_tokenizer

if TYPE_CHECKING:
    from effcap.decoders.base import Decoder


MODEL_SECTIONS = ("encoder", "decoder", "sampler")


@keras.saving.register_keras_serializable("effcap")
class Captioner(CaptioningModel):
    """An image captioner.

    Args:
        encoder: an encoder such as `ImageEncoder`.
        decoder: a decoder such as `GPT2`.
        tokenizer: a `Tokenizer`. Without one, the model trains on tokens but generates no text.
        sampler: sampler that generates captions by default, a sampler of `effcap.samplers` or its
            config. None for beam search with its defaults.
        prefix: text that captions begin with unless `generate` is given another, such as the
            prompt "a picture of" that all training captions followed. Default "".

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
        sampler: Sampler | Mapping[str, Any] | None = None,
        prefix: str = "",
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
        self.tokenizer, self.prefix = tokenizer, prefix
        self.sampler = from_config(sampler) if isinstance(sampler, Mapping) else sampler
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
        encoder_and_decoder = create_encoder_and_decoder(hparams, tokenizer)
        return cls(*encoder_and_decoder, tokenizer, hparams.get("sampler"))

    def hparams(self) -> dict:
        """Returns the hyperparameters of this captioner, as in a file of hparams/."""
        hparams = {
            "encoder": {"kind": _kind(ENCODERS, self.encoder), **self.encoder.get_config()},
            "decoder": {"kind": _kind(DECODERS, self.decoder), **self.decoder.get_config()},
        }
        return hparams if self.sampler is None else {**hparams, "sampler": to_config(self.sampler)}

    def get_config(self) -> dict:
        tokenizer = None if self.tokenizer is None else self.tokenizer.to_json()
        return {**self._config(), "tokenizer": tokenizer, "name": self.name}

    def _config(self) -> dict:
        """Returns the hyperparameters, and the prefix if there is one."""
        return {**self.hparams(), **({"prefix": self.prefix} if self.prefix else {})}

    @classmethod
    def from_config(cls, config: dict) -> Captioner:
        text = config.get("tokenizer")
        hparams = {name: config[name] for name in MODEL_SECTIONS if name in config}
        captioner = cls.from_hparams(hparams, None if text is None else parse_tokenizer(text))
        captioner.name = config.get("name", captioner.name)
        captioner.prefix = config.get("prefix", "")
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
        presets.save_preset(self, folder, self._config(), self.tokenizer, dtype, record)

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
        hparams = {name: config[name] for name in MODEL_SECTIONS if name in config}
        try:
            captioner = cls.from_hparams(hparams, tokenizer, encoder=encoder, decoder=decoder)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Cannot create the captioner of {folder / presets.CONFIG}: {error}"
            ) from error
        presets.load_weights(captioner, folder / presets.WEIGHTS)
        captioner.prefix = config.get("prefix", "")
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
