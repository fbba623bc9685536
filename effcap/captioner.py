"""The captioner model: an encoder, a decoder and a tokenizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from effcap import presets
from effcap.adapters.adaptable import AdaptableModel
from effcap.config import create, load_hparams, merge_hparams, model_hparams
from effcap.decoders.registry import DECODERS
from effcap.display import table_html
from effcap.encoders.registry import ENCODERS
from effcap.engines.compiled_captioner import CompiledCaptioner, compile_captioner
from effcap.export import export_signature
from effcap.generation import GenerationCache
from effcap.losses import CaptionLoss
from effcap.metrics.token_cross_entropy import TokenCrossEntropy
from effcap.npair import NPairLoss, PrefixedLogits
from effcap.precision import dtype_policy, find_precision
from effcap.samplers import Sampler
from effcap.samplers.registry import from_config
from effcap.tokenizers import Tokenizer
from effcap.tokenizers.kinds import parse_tokenizer
from effcap.weight_files import load_weights
from effcap.weights.captioner_folder import changed_hparams, find_tokenizer, open_captioner_file
from effcap.weights.captioner_tensors import load_captioner_tensors

if TYPE_CHECKING:
    from effcap.decoders.base import Decoder
    from effcap.weights.captioner_folder import CaptionerFile


MODEL_SECTIONS = ("encoder", "decoder", "sampler")


@keras.saving.register_keras_serializable("effcap")
class Captioner(AdaptableModel):
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

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: the parts of the captioner and their sizes."""
        hparams, backbone = self.hparams(), getattr(self.encoder, "backbone", None)
        encoder, decoder = hparams["encoder"], hparams["decoder"]
        takes = " or ".join(self.encoder.input_keys)
        if backbone is not None:
            height, width = self.encoder.image_size
            takes = f"{backbone.net.name}, photos of {height} x {width} pixels ({backbone.fit})"
        millions = self.count_params() / 1e6
        trainable = sum(math.prod(x.shape) for x in self.trainable_variables) / 1e6
        rows = {
            "encoder": f"{encoder['kind']}: {takes}",
            "decoder": f"{decoder['kind']}: {decoder['num_layers']} layers of width "
            f"{decoder['hidden_dim']}, {self.decoder.vocabulary_size} tokens",
            "output": "" if self.output_tokens is None else f"{len(self.output_tokens)} tokens",
            "fusion": (decoder.get("fusion") or {}).get("kind", "cross"),
            "parameters": f"{millions:.1f} million, of which {trainable:.1f} are trainable",
            "sampler": self.sampler or "beam, with its defaults",
            "prefix": self.prefix,
            "adapters": ", ".join(self.adapter_config()),
        }
        return table_html("Captioner", {name: value for name, value in rows.items() if value})

    def get_config(self) -> dict:
        tokenizer = None if self.tokenizer is None else self.tokenizer.to_json()
        return {**self._config(), "tokenizer": tokenizer, "name": self.name}

    def _config(self) -> dict:
        """Returns the hyperparameters, and the prefix and the adapters if there are any."""
        others = {"prefix": self.prefix, "adapters": self.adapter_config()}
        return {**self.hparams(), **{name: value for name, value in others.items() if value}}

    @classmethod
    def from_config(cls, config: dict) -> Captioner:
        text = config.get("tokenizer")
        hparams = {name: config[name] for name in MODEL_SECTIONS if name in config}
        captioner = cls.from_hparams(hparams, None if text is None else parse_tokenizer(text))
        captioner.name = config.get("name", captioner.name)
        captioner.prefix = config.get("prefix", "")
        captioner.restore_adapters(config.get("adapters", {}))
        return captioner

    def save_to_preset(
        self,
        folder: str | PathLike,
        dtype: str = "float32",
        record: Mapping[str, Any] | None = None,
        base: str | PathLike | None = None,
    ) -> None:
        """Writes config.json, model.weights.h5, tokenizer.json and training.json.

        Args:
            folder: folder of the preset, created if missing. An existing preset is replaced once
                the new one is complete.
            dtype: "float16" stores the weights in half the space, "int8" the large matrices in a
                quarter, with a scale for each output. Default "float32".
            record: record of the training, written to training.json.
            base: preset that the captioner's only adapter was added to. The new preset then holds
                the adapter alone, in PEFT's format, and needs that preset.

        Raises:
            OSError: there is too little disk space.
            ValueError: there is no such `dtype`; weights are not finite and `dtype` is "int8"; with
                `base`, the captioner has not exactly one adapter, or it is merged.
        """
        if base is None:
            presets.save_preset(self, folder, self._config(), self.tokenizer, dtype, record)
            return
        name = self.single_adapter()
        tokenizer = self.tokenizer
        config = {
            "base_fingerprint": presets.weights_fingerprint(self.base_weights()),
            "tokenizer_fingerprint": None if tokenizer is None else tokenizer.fingerprint,
            "adapter": name,
            "prefix": self.prefix,
            **self.hparams(),
        }
        presets.save_adapter_preset(
            folder, base, config, record, lambda new: self.save_adapter(new, name, str(base))
        )

    @classmethod
    def from_preset(
        cls,
        preset: str | PathLike,
        *,
        encoder: Mapping[str, Any] | None = None,
        decoder: Mapping[str, Any] | None = None,
        precision: str | None = None,
    ) -> Captioner:
        """Loads the captioner of a preset.

        Args:
            preset: a folder, the name of a shipped preset, or a run folder; a folder of
                transformers with ViT and GPT-2 or BLIP; or either on the Hugging Face hub, as
                hf://USER/NAME or hf://USER/NAME@REVISION.
            encoder: changed hyperparameters of the encoder, such as another dropout. The weights
                must still fit.
            decoder: changed hyperparameters of the decoder.
            precision: "float32", or "bfloat16" for weights in half the memory: an option for
                captioning, not for training. Layer norms, softmax, logits and scores are float32 in
                both. Default Keras's dtype policy, which is float32 unless set.

        Raises:
            FileNotFoundError: there is no such preset, or a file of it is missing.
            ImportError: the preset is on the hub, and `huggingface_hub` is not installed.
            OSError: the preset is on the hub and cannot be read.
            ValueError: a file is damaged, hyperparameters do not fit the weights, or there is no
                such precision.
        """
        if precision is not None:
            with dtype_policy(find_precision(precision).caption_policy):
                return cls.from_preset(preset, encoder=encoder, decoder=decoder)
        folder = presets.preset_folder(preset)
        changes = {"encoder": encoder, "decoder": decoder}
        changes = {name: values for name, values in changes.items() if values}
        file = open_captioner_file(folder)
        if file is not None:
            hparams = changed_hparams(file.config, changes)
            return cls.from_captioner_file(file, find_tokenizer(file.config), hparams)[0]
        config = presets.read_config(folder)
        if presets.BASE in config:
            return cls._from_adapter_preset(folder, config, changes)
        tokenizer = presets.load_tokenizer(folder, config.get("tokenizer_fingerprint"))
        hparams = {name: config[name] for name in MODEL_SECTIONS if name in config}
        try:
            captioner = cls.from_hparams(hparams, tokenizer, encoder=encoder, decoder=decoder)
            captioner.restore_adapters(config.get("adapters", {}))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Cannot create the captioner of {folder / presets.CONFIG}: {error}"
            ) from error
        load_weights(captioner, folder / presets.WEIGHTS)
        captioner.prefix = config.get("prefix", "")
        return captioner

    @classmethod
    def _from_adapter_preset(
        cls, folder: Path, config: Mapping[str, Any], overrides: Mapping[str, Any]
    ) -> Captioner:
        """Loads the preset that an adapter was added to, then the adapter.

        Raises:
            FileNotFoundError: that preset or a file is missing.
            ValueError: a file is damaged, or that preset has other weights than it had.
        """
        sections = {name: config[name] for name in ("encoder", "decoder")}
        base = presets.find_base(folder, config)
        hparams = merge_hparams(sections, overrides)
        rounds_weights = keras.config.dtype_policy().variable_dtype != "float32"
        with dtype_policy("float32" if rounds_weights else None):
            captioner = cls.from_preset(base, **hparams)
        fingerprint = presets.weights_fingerprint(captioner.base_weights())
        tokenizer = None if captioner.tokenizer is None else captioner.tokenizer.fingerprint
        if (fingerprint, tokenizer) != (
            config.get("base_fingerprint"),
            config.get("tokenizer_fingerprint"),
        ):
            raise ValueError(
                f"{folder} holds an adapter of {base} with other weights or another tokenizer than "
                "are there now: put the former ones back, or train the adapter again"
            )
        if rounds_weights:  # only the exact weights have the fingerprint
            captioner = cls.from_preset(base, **hparams)
        captioner.load_adapter(folder, config.get("adapter", "default"))
        if "sampler" in config:
            captioner.sampler = from_config(config["sampler"])
        captioner.prefix = config.get("prefix", "")
        return captioner

    @classmethod
    def from_captioner_file(
        cls, file: CaptionerFile, tokenizer: Tokenizer | None, hparams: Mapping[str, Any]
    ) -> tuple[Captioner, str]:
        """Creates a captioner with the weights of ViT and GPT-2 or of BLIP.

        Args:
            file: from `effcap.weights.captioner_folder.open_captioner_file`.
            tokenizer: from `find_tokenizer` there. None for a captioner that generates no text.
            hparams: hyperparameters of the file with or without changes.

        Returns:
            The captioner, and a message about the weights.

        Raises:
            ValueError: the hyperparameters do not fit each other or the tensors.
        """
        config = file.config
        try:
            captioner = cls.from_hparams(hparams, tokenizer)
        except (TypeError, ValueError) as error:
            raise ValueError(f"Cannot create the captioner of {config.path}: {error}") from error
        message = load_captioner_tensors(captioner, config, file.tensors)
        if file.outside:
            message += f"; outside the model: {len(file.outside)} tensors"
        return captioner, message

    def compile_for(
        self,
        engine: str = "openvino",
        precision: str = "float32",
        folder: str | PathLike | None = None,
    ) -> CompiledCaptioner:
        """Compiles this captioner for an engine that is faster than Keras on a processor.

        Args:
            engine: "openvino", which requires OpenVINO: `pip install 'effcap[openvino]'`.
            precision: "float32" for the same captions; "int8" for the decoder's weights in 8 bits,
                or "bfloat16" for weights in 16 bits, with which a few captions differ.
            folder: folder to keep it in, for `effcap.CompiledCaptioner(folder)`. Default none.

        Returns:
            A captioner that generates captions as this one does now; it does not train, and later
            changes of this one do not change it.

        Raises:
            ImportError: OpenVINO is not installed.
            ValueError: there is no such engine or precision, or the captioner has no tokenizer.
        """
        return compile_captioner(self, engine, precision, folder)

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
