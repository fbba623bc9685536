"""Reads the sizes of a GPT-2 from the JSON file next to its weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.config import list_variants, load_hparams, read_json

if TYPE_CHECKING:
    from effcap.decoders.gpt2 import GPT2

CONFIG, HPARAMS = "config.json", "hparams.json"  # Hugging Face's file and OpenAI's
# Our names, and the names in either file.
SIZES = {
    "vocabulary_size": ("vocab_size", "n_vocab"),
    "max_sequence_length": ("n_positions", "n_ctx"),
    "hidden_dim": ("n_embd",),
    "num_heads": ("n_head",),
    "num_layers": ("n_layer",),
    "intermediate_dim": ("n_inner",),
}
# Settings of a GPT-2 that change its output, and the values that `effcap.decoders.gpt2` supports.
# `reorder_and_upcast_attn` is not among them: it changes rounding in half precision only.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),  # the same function
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}


def config_file(folder: str | PathLike) -> Path:
    """Returns the path of config.json, or of hparams.json if there is no config.json.

    Raises:
        FileNotFoundError: the folder has neither.
    """
    for name in (CONFIG, HPARAMS):
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise FileNotFoundError(f"No {CONFIG} or {HPARAMS} with the sizes of a GPT-2 in {folder}")


def gpt2_hparams(folder: str | PathLike) -> dict[str, Any]:
    """Reads the sizes of the GPT-2 in a folder, in the form of the section "decoder" of hparams.

    Args:
        folder: contains OpenAI's `hparams.json` or Hugging Face's `config.json`; config.json is
            read if both are present.

    Returns:
        kind ("gpt2"), vocabulary_size, max_sequence_length, hidden_dim, num_heads, num_layers and
        intermediate_dim (None for 4 * hidden_dim).

    Raises:
        FileNotFoundError: the folder has neither file.
        ValueError: a size is missing, or the file describes a GPT-2 that the decoder cannot
            represent, such as one with another activation.
    """
    path = config_file(folder)
    contents = read_json(path)
    if not isinstance(contents, dict):
        raise ValueError(f"Expected a JSON object in {path}. Received: {type(contents).__name__}")
    for name, supported in SUPPORTED.items():
        value = contents.get(name, supported[0])
        if value not in supported:
            raise ValueError(
                f"Expected {name} out of {', '.join(map(repr, supported))} in {path}, which is all "
                f"that EffCap's GPT-2 supports. Received: {name}={value!r}"
            )
    sizes = {ours: _size(contents, ours, theirs, path) for ours, theirs in SIZES.items()}
    if sizes["hidden_dim"] % sizes["num_heads"]:
        raise ValueError(
            f"Expected n_embd to be a multiple of n_head in {path}. "
            f"Received: n_embd={sizes['hidden_dim']}, n_head={sizes['num_heads']}"
        )
    return {"kind": "gpt2", **sizes}


def _size(contents: Mapping[str, Any], ours: str, theirs: tuple[str, ...], path: Path) -> Any:
    values = {name: contents[name] for name in theirs if contents.get(name) is not None}
    if not values and ours == "intermediate_dim":
        return None
    if not values:
        raise ValueError(f"{path} lacks {' or '.join(theirs)}")
    sizes = list(values.values())
    if not all(type(size) is int and size > 0 for size in sizes) or len(set(sizes)) > 1:
        received = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise ValueError(
            f"Expected {' and '.join(values)} in {path} to be one positive integer. "
            f"Received: {received}"
        )
    return sizes[0]


def matching_variants(sizes: Mapping[str, Any]) -> list[str]:
    """Returns the names of the image captioners in hparams/ whose decoder has these sizes."""
    variants = {name: load_hparams(name) for name in list_variants()}
    return [
        name
        for name, hparams in variants.items()
        if hparams["encoder"].get("kind") == "image"
        and all(hparams["decoder"].get(key) == value for key, value in sizes.items())
    ]


def check_sizes(decoder: GPT2, folder: str | PathLike) -> None:
    """Checks that a decoder, without added special tokens, has the sizes of a folder's GPT-2.

    Raises:
        ValueError: sizes differ; the message names them, and the variant or settings that fit.
    """
    sizes = gpt2_hparams(folder)
    kind, default_dim = sizes.pop("kind"), 4 * sizes["hidden_dim"]
    expected = sizes | {"intermediate_dim": sizes["intermediate_dim"] or default_dim}
    ours = {name: getattr(decoder, name) for name in expected}
    ours |= {
        "vocabulary_size": decoder.vocabulary_size - decoder.num_special_tokens,
        "intermediate_dim": decoder.intermediate_dim or 4 * decoder.hidden_dim,
    }
    differing = [name for name in expected if expected[name] != ours[name]]
    if not differing:
        return
    needed = sizes | {"vocabulary_size": sizes["vocabulary_size"] + decoder.num_special_tokens}
    settings = " ".join(
        f"--set decoder.{name}={'null' if needed[name] is None else needed[name]}"
        for name in differing
    )
    variants = matching_variants({"kind": kind, **sizes})
    hint = f"the variant {' or '.join(variants)}, or " if variants else ""
    raise ValueError(
        f"Expected a decoder of the sizes in {config_file(folder)}: {_listed(expected, differing)}."
        f" Received: {_listed(ours, differing)}. Use {hint}{settings}"
    )


def _listed(sizes: Mapping[str, Any], names: Iterable[str]) -> str:
    return ", ".join(f"{name}={sizes[name]}" for name in names)
