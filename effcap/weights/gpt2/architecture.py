"""The sizes of a GPT-2, as the JSON beside its weights tells them, in our names."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.config import list_variants, load_hparams, read_json

if TYPE_CHECKING:
    from effcap.decoders.gpt2 import GPT2

CONFIG, HPARAMS = "config.json", "hparams.json"  # Hugging Face's and OpenAI's
# Our names, and theirs in either file.
SIZES = {
    "vocabulary_size": ("vocab_size", "n_vocab"),
    "positions": ("n_positions", "n_ctx"),
    "width": ("n_embd",),
    "heads": ("n_head",),
    "layers": ("n_layer",),
    "inner": ("n_inner",),
}
# What a GPT-2 may say that changes what it computes, and the values that `effcap.decoders.gpt2` has.
ALLOWED: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),  # one function
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}


def config_file(folder: str | PathLike) -> Path:
    """The JSON with the sizes: config.json, or hparams.json where there is none."""
    for name in (CONFIG, HPARAMS):
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise FileNotFoundError(
        f"Expected {CONFIG} or {HPARAMS} with the sizes of a GPT-2 in {str(folder)!r}. Found none"
    )


def gpt2_hparams(folder: str | PathLike) -> dict[str, int | None]:
    """The sizes in a GPT-2's folder, as the "decoder" section of hparams has them.

    Args:
        folder: of OpenAI's checkpoint (`hparams.json`) or of Hugging Face's files (`config.json`,
            which is read where both are there).

    Returns:
        vocabulary_size, positions, width, heads, layers and inner (None for 4 * width).

    Raises:
        FileNotFoundError: without either file.
        ValueError: for one that lacks a size, or describes a GPT-2 that is not ours, such as one
            with another activation.
    """
    path = config_file(folder)
    contents = read_json(path)
    if not isinstance(contents, dict):
        raise ValueError(f"Expected a JSON object in {path}. Received: {type(contents).__name__}")
    for name, allowed in ALLOWED.items():
        value = contents.get(name, allowed[0])
        if value not in allowed:
            raise ValueError(
                f"Expected {name} out of {', '.join(map(repr, allowed))} in {path}: EffCap's "
                f"GPT-2 has nothing else. Received: {name}={value!r}"
            )
    sizes = {ours: _size(contents, ours, theirs, path) for ours, theirs in SIZES.items()}
    if sizes["width"] % sizes["heads"]:
        raise ValueError(
            f"Expected n_embd to be a multiple of n_head in {path}. "
            f"Received: n_embd={sizes['width']}, n_head={sizes['heads']}"
        )
    return sizes


def _size(contents: dict, ours: str, theirs: tuple[str, ...], path: Path) -> int | None:
    found = {name: contents[name] for name in theirs if contents.get(name) is not None}
    if not found and ours == "inner":
        return None
    if not found:
        raise ValueError(f"Expected {' or '.join(theirs)} in {path}. Found none")
    values = list(found.values())
    right = all(type(value) is int and value > 0 for value in values)
    if not right or values.count(values[0]) < len(values):
        received = ", ".join(f"{name}={value!r}" for name, value in found.items())
        raise ValueError(
            f"Expected {' and '.join(found)} in {path} to be one positive number. "
            f"Received: {received}"
        )
    return values[0]


def fitting_variants(sizes: dict[str, int | None]) -> list[str]:
    """Names of the variants for photos whose decoder has these sizes."""
    variants = {name: load_hparams(name) for name in list_variants()}
    return [
        name
        for name, hparams in variants.items()
        if hparams["encoder"].get("kind") == "image"
        and all(hparams["decoder"].get(key) == value for key, value in sizes.items())
    ]


def check_sizes(decoder: GPT2, folder: str | PathLike) -> None:
    """ValueError unless the decoder, its added special tokens apart, is as large as the folder's.

    It names the numbers that differ, and the variants or settings that fit.
    """
    sizes = gpt2_hparams(folder)
    wanted = sizes | {"inner": sizes["inner"] or 4 * sizes["width"]}
    ours = {name: getattr(decoder, name) for name in wanted}
    ours |= {"vocabulary_size": decoder.base_size, "inner": decoder.inner or 4 * decoder.width}
    differing = [name for name in wanted if wanted[name] != ours[name]]
    if not differing:
        return
    needed = sizes | {"vocabulary_size": sizes["vocabulary_size"] + decoder.special_tokens}
    settings = " ".join(
        f"decoder.{name}={'null' if needed[name] is None else needed[name]}" for name in differing
    )
    variants = fitting_variants(sizes)
    hint = f"the variant {' or '.join(variants)}, or " if variants else ""
    raise ValueError(
        f"Expected a decoder of the sizes in {config_file(folder)}: {_listed(wanted, differing)}. "
        f"Received: one with {_listed(ours, differing)}. Use {hint}--set {settings}"
    )


def _listed(sizes: dict, names: list[str]) -> str:
    return ", ".join(f"{name}={sizes[name]}" for name in names)
