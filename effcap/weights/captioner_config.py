"""Reads the hyperparameters of a captioner of transformers from its folder. Imports no Keras.

These are captioners of ViT and GPT-2 (`VisionEncoderDecoderModel`) and BLIP
(`BlipForConditionalGeneration`). Settings that change the output and have no counterpart are
errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from effcap.backbones.vit_sizes import BLIP_VARIANTS, VIT_VARIANTS, ViTVariant
from effcap.config import read_json
from effcap.preset_files import BLIP, TRANSFORMERS, VIT_GPT2
from effcap.weights.generation_defaults import default_sampler, read_generation_settings
from effcap.weights.image_processor import BLIP_PROCESSOR, VIT_PROCESSOR, read_image_processor

CONFIG, SAMPLER = "config.json", "sampler"
# Hyperparameters of the decoder that belong to training; a variant's are kept.
TRAINING_FIELDS = ("dropout", "attention_dropout", "frozen")
REPETITION = "no_repeat_ngram_size"  # set by default, as these captioners repeat themselves
# Our activation of each name in transformers.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}
# Defaults of transformers' classes, where config.json records nothing.
VIT_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
}
BLIP_VISION_DEFAULTS = {**VIT_DEFAULTS, "image_size": 384, "layer_norm_eps": 1e-5}
GPT2_DEFAULTS = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "resid_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
}
BLIP_TEXT_DEFAULTS = {
    "vocab_size": 30524,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "bos_token_id": 30522,
    "sep_token_id": 102,
}
# Settings that change the output, with the only value that has a counterpart.
REQUIRED: dict[str, dict[str, Any]] = {
    "vit": {"num_channels": 3},
    "gpt2": {
        "model_type": "gpt2",
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
    },
    "blip_text": {"is_decoder": True, "position_embedding_type": "absolute"},
}


@dataclass(frozen=True)
class CaptionerConfig:
    """The hyperparameters of a captioner with published weights.

    Attributes:
        path: folder or file.
        system: kind of the captioner's tensors, a key of `effcap.weights.captioner_tensors.NAMES`.
        hparams: the sections encoder, decoder and sampler.
        start_id: token fed before a caption. None for the tokenizer's own.
        end_id: token that ends a caption. None for the tokenizer's own.
        notes: messages about what is assumed or differs.
        assumed: settings that neither file nor folder records, by dotted name.
    """

    path: Path
    system: str
    hparams: dict[str, Any]
    start_id: int | None
    end_id: int | None
    notes: list[str]
    assumed: dict[str, Any] = field(default_factory=dict)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid of patches that the positions were trained for."""
        backbone = self.hparams["encoder"]["backbone"]
        patch = backbone.get("sizes", {}).get("patch_size", 16)
        height, width = backbone["image_size"]
        return height // patch, width // patch


class Section:
    """A section of config.json, with readers that name the setting in errors.

    Args:
        path: config.json.
        name: name of the section.
        values: the section.
        defaults: values of what is not recorded.
    """

    def __init__(self, path: Path, name: str, values: Any, defaults: Mapping[str, Any]) -> None:
        if not isinstance(values, Mapping):
            raise ValueError(f"Expected a section {name} in {path}. Received: {name}={values!r}")
        self.path, self.name = path, name
        self.values = {**defaults, **values}

    def fail(self, name: str, expected: str) -> ValueError:
        """Returns the error for a setting."""
        return ValueError(
            f"Expected {self.name}.{name} in {self.path} to be {expected}. "
            f"Received: {name}={self.values.get(name)!r}"
        )

    def integer(self, name: str, least: int = 1) -> int:
        """Returns an integer setting of at least `least`."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.fail(name, f"an integer of at least {least}")
        return value

    def number(self, name: str) -> float:
        """Returns a setting that is a number."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(name, "a number")
        return float(value)

    def boolean(self, name: str) -> bool:
        """Returns a setting that is true or false."""
        value = self.values.get(name)
        if not isinstance(value, bool):
            raise self.fail(name, "true or false")
        return value

    def sides(self, name: str) -> list[int]:
        """Returns a height and a width, recorded as one integer or two."""
        value = self.values[name]
        sides = list(value) if isinstance(value, list | tuple) else [value, value]
        if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
            raise self.fail(name, "a positive integer, or two")
        return sides

    def activation(self, name: str) -> str:
        """Returns our name of an activation."""
        value = self.values[name]
        if value not in ACTIVATIONS:
            raise self.fail(name, f"out of {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[value]

    def token(self, name: str) -> int | None:
        """Returns a token id, or None; of several, the only one."""
        value = self.values.get(name)
        if isinstance(value, list) and len(value) == 1:
            (value,) = value
        if value is not None and (type(value) is not int or value < 0):
            raise self.fail(name, "one token")
        return value

    def check(self, required: Mapping[str, Any]) -> None:
        """Checks settings that have one supported value."""
        for name, value in required.items():
            if self.values.get(name) not in (None, value):
                raise self.fail(name, f"{value!r}, which is all that EffCap supports")


def is_captioner_folder(folder: str | PathLike[str] | None) -> bool:
    """Returns whether a folder is that of a captioner of transformers.

    Raises:
        ValueError: its config.json is not JSON.
    """
    return folder is not None and _model_type(Path(folder)) in TRANSFORMERS


def _model_type(folder: Path) -> Any:
    path = folder / CONFIG
    contents = read_json(path) if path.is_file() else None
    return contents.get("model_type") if isinstance(contents, dict) else None


def read_captioner_config(folder: str | PathLike[str]) -> CaptionerConfig:
    """Reads the hyperparameters of the captioner of transformers in a folder.

    Args:
        folder: as on Hugging Face's hub, with config.json, and preprocessor_config.json and
            generation_config.json if they exist.

    Raises:
        ValueError: a file is damaged, or records something that has no counterpart.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    return (_read_vit_gpt2 if config["model_type"] == VIT_GPT2 else _read_blip)(folder, config)


def _read_vit_gpt2(folder: Path, config: Mapping[str, Any]) -> CaptionerConfig:
    path = folder / CONFIG
    vision = Section(path, "encoder", config.get("encoder"), VIT_DEFAULTS)
    vision.check({"model_type": "vit"})
    text = Section(path, "decoder", config.get("decoder"), GPT2_DEFAULTS)
    text.check(REQUIRED["gpt2"])
    if text.values.get("add_cross_attention") is not True:
        raise text.fail("add_cross_attention", "true")
    hidden_dim, memory_dim = text.integer("n_embd"), vision.integer("hidden_size")
    if text.values.get("cross_attention_hidden_size") not in (None, hidden_dim):
        raise text.fail("cross_attention_hidden_size", f"null or the decoder's width {hidden_dim}")
    if text.values.get("cross_attention_hidden_size") not in (None, memory_dim):
        raise text.fail("cross_attention_hidden_size", f"null or the encoder's width {memory_dim}")
    decoder = {
        "kind": "gpt2",
        "vocabulary_size": text.integer("vocab_size"),
        "max_sequence_length": text.integer("n_positions"),
        "hidden_dim": hidden_dim,
        "num_heads": text.integer("n_head"),
        "num_layers": text.integer("n_layer"),
        "intermediate_dim": None if text.values["n_inner"] is None else text.integer("n_inner"),
        "dropout": text.number("resid_pdrop"),
        "attention_dropout": text.number("attn_pdrop"),
        "fusion": {"kind": "cross"},
    }
    changes = {
        "activation": text.activation("activation_function"),
        "epsilon": text.number("layer_norm_epsilon"),
    }
    usual = {"activation": "gelu_new", "epsilon": 1e-5}
    decoder |= {name: value for name, value in changes.items() if value != usual[name]}
    backbone, notes = _read_vision(folder, vision, VIT_VARIANTS)
    encoder: dict[str, Any] = {"kind": "backbone", "backbone": backbone}
    if hidden_dim != memory_dim:
        encoder["projection_dim"] = hidden_dim
    tokens = Section(path, CONFIG, _tokens(folder, config, text.values), {})
    start = tokens.token("decoder_start_token_id")
    return _with_sampler(
        folder,
        CaptionerConfig(
            folder,
            VIT_GPT2,
            {"encoder": encoder, "decoder": decoder},
            tokens.token("bos_token_id") if start is None else start,
            tokens.token("eos_token_id"),
            notes,
        ),
        [config, text.values],
    )


def _tokens(folder: Path, config: Mapping[str, Any], decoder: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tokens that transformers generates with, of three places in order."""
    path = folder / "generation_config.json"
    sources = [decoder, config, read_json(path) if path.is_file() else {}]
    names = ("decoder_start_token_id", "bos_token_id", "eos_token_id")
    return {
        name: source[name] for source in sources for name in names if source.get(name) is not None
    }


def _read_blip(folder: Path, config: Mapping[str, Any]) -> CaptionerConfig:
    path = folder / CONFIG
    vision = Section(path, "vision_config", config.get("vision_config") or {}, BLIP_VISION_DEFAULTS)
    text = Section(path, "text_config", config.get("text_config") or {}, BLIP_TEXT_DEFAULTS)
    text.check(REQUIRED["blip_text"])
    decoder = {
        "kind": "bert",
        "vocabulary_size": text.integer("vocab_size"),
        "max_sequence_length": text.integer("max_position_embeddings"),
        "hidden_dim": text.integer("hidden_size"),
        "num_heads": text.integer("num_attention_heads"),
        "num_layers": text.integer("num_hidden_layers"),
        "intermediate_dim": text.integer("intermediate_size"),
        "dropout": text.number("hidden_dropout_prob"),
        "attention_dropout": text.number("attention_probs_dropout_prob"),
    }
    changes = {
        "activation": text.activation("hidden_act"),
        "epsilon": text.number("layer_norm_eps"),
    }
    usual = {"activation": "gelu", "epsilon": 1e-12}
    decoder |= {name: value for name, value in changes.items() if value != usual[name]}
    backbone, notes = _read_vision(folder, vision, BLIP_VARIANTS)
    return _with_sampler(
        folder,
        CaptionerConfig(
            folder,
            BLIP,
            {"encoder": {"kind": "backbone", "backbone": backbone}, "decoder": decoder},
            text.token("bos_token_id"),
            text.token("sep_token_id"),
            notes,
        ),
        [text.values, config],
    )


def _read_vision(
    folder: Path, vision: Section, variants: Mapping[str, ViTVariant]
) -> tuple[dict[str, Any], list[str]]:
    """Returns the arguments of the backbone, and messages."""
    vision.check(REQUIRED["vit"])
    hidden_dim, num_heads = vision.integer("hidden_size"), vision.integer("num_attention_heads")
    vision.check({"head_dim": hidden_dim // num_heads})
    patch, other = vision.sides("patch_size")
    if patch != other:
        raise vision.fail("patch_size", "square")
    sizes = {
        "patch_size": patch,
        "hidden_dim": hidden_dim,
        "num_layers": vision.integer("num_hidden_layers"),
        "num_heads": num_heads,
        "activation": vision.activation("hidden_act"),
        "epsilon": vision.number("layer_norm_eps"),
        "intermediate_dim": vision.integer("intermediate_size"),
        "qkv_bias": vision.boolean("qkv_bias"),
    }
    image_size = vision.sides("image_size")
    usual = VIT_PROCESSOR if variants is VIT_VARIANTS else BLIP_PROCESSOR
    arguments, notes = read_image_processor(folder, usual, image_size)
    return {**backbone_arguments(sizes, image_size, variants), **arguments}, notes


def backbone_arguments(
    sizes: Mapping[str, Any], image_size: Sequence[int], variants: Mapping[str, ViTVariant]
) -> dict[str, Any]:
    """Returns the arguments of a backbone of these sizes, based on the most similar variant."""
    sizes = dict(sizes)
    if sizes["intermediate_dim"] == 4 * sizes["hidden_dim"]:
        sizes["intermediate_dim"] = None
    changes = {
        name: {key: value for key, value in sizes.items() if value != asdict(variant)[key]}
        for name, variant in variants.items()
    }
    network = min(changes, key=lambda name: len(changes[name]))
    changed = {"sizes": changes[network]} if changes[network] else {}
    image_size = list(image_size)
    return {"network": network, "image_size": image_size, "trainable_blocks": 0, **changed}


def _with_sampler(
    folder: Path, config: CaptionerConfig, sections: Sequence[Mapping[str, Any]]
) -> CaptionerConfig:
    """Returns a config with the default sampler that the folder records."""
    settings = read_generation_settings(folder, sections)
    length = config.hparams["decoder"]["max_sequence_length"]
    sampler, notes = default_sampler(settings, length)
    config.hparams[SAMPLER] = sampler
    config.notes.extend(notes)
    if REPETITION not in settings:
        config.assumed[f"{SAMPLER}.{REPETITION}"] = sampler[REPETITION]
    return config


def adopt_captioner(
    hparams: Mapping[str, Any], weights: str | PathLike | None, model: str
) -> dict[str, Any]:
    """Returns hyperparameters of a variant with the encoder and the decoder of a folder.

    Dropout and what is trained stay those of the variant.

    Args:
        hparams: hyperparameters of a variant.
        weights: folder of weights. The hyperparameters change for a captioner of transformers, and
            stay the same for all else.
        model: name of the variant, for messages.

    Raises:
        ValueError: the captioner is of another kind than the variant, or as
            `read_captioner_config`.
    """
    if weights is None or not is_captioner_folder(weights):
        return dict(hparams)
    config = read_captioner_config(weights)
    encoder, decoder = config.hparams["encoder"], config.hparams["decoder"]
    kinds = tuple(section.get("kind") for section in (encoder, decoder))
    own = tuple(hparams[section].get("kind") for section in ("encoder", "decoder"))
    if own != kinds:
        raise ValueError(
            f"{weights} holds a captioner with encoder.kind={kinds[0]} and decoder.kind="
            f"{kinds[1]}; use the variant vit-gpt2, blip-base or blip-large. Received: {model}, "
            f"with {own[0]} and {own[1]}"
        )
    kept = {
        name: hparams["decoder"][name] for name in TRAINING_FIELDS if name in hparams["decoder"]
    }
    trainable = hparams["encoder"]["backbone"].get("trainable_blocks", 0)
    backbone = {**encoder["backbone"], "trainable_blocks": trainable}
    return {
        **hparams,
        "encoder": {**encoder, "backbone": backbone},
        "decoder": {**decoder, **kept},
        SAMPLER: config.hparams[SAMPLER],
    }
