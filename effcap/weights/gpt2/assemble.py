"""A new captioner around the GPT-2 in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

from effcap.config import load_hparams, set_hparams
from effcap.tokenizers.tokenizer import Tokenizer
from effcap.weights.gpt2.architecture import config_file, fitting_variants, gpt2_hparams

if TYPE_CHECKING:
    from effcap.captioner import Captioner

DEFAULT_VARIANT = "gpt2-124m"  # for a GPT-2 that is of no variant's size


def captioner_hparams(
    folder: str | PathLike,
    tokenizer: Tokenizer,
    variant: str | PathLike | None = None,
    settings: Sequence[str] = (),
) -> dict:
    """Hyperparameters of a captioner whose decoder is the size of the folder's GPT-2.

    Args:
        folder: a GPT-2's.
        tokenizer: tokens beyond the GPT-2's vocabulary become added special tokens.
        variant: what all but the decoder's sizes is taken from; None for the one of the same size,
            or "gpt2-124m". Heads of its encoder that the width is no multiple of become as many as
            the decoder's.
        settings: changes such as "decoder.dropout=0.2".

    Raises:
        FileNotFoundError: for a folder or variant that is not there.
        ValueError: for settings that do not fit, or a tokenizer of a larger vocabulary.
    """
    sizes = gpt2_hparams(folder)
    tokens = sizes["vocabulary_size"]
    if tokenizer.base_vocabulary_size > tokens:
        raise ValueError(
            f"Expected a tokenizer of at most the {tokens} tokens in {config_file(folder)}. "
            f"Received: one of {tokenizer.base_vocabulary_size}"
        )
    variant = variant or next(iter(fitting_variants(sizes)), DEFAULT_VARIANT)
    hparams = load_hparams(variant)
    parts = {name: dict(hparams[name]) for name in ("encoder", "decoder")}
    added = max(0, tokenizer.vocabulary_size - tokens)
    parts["decoder"] |= sizes | {"vocabulary_size": tokens + added, "special_tokens": added}
    if sizes["width"] % parts["encoder"].get("heads", 1):
        parts["encoder"]["heads"] = sizes["heads"]
    parts = set_hparams(parts, settings)
    if set(parts) != {"encoder", "decoder"}:
        raise ValueError(
            "Expected settings of encoder and decoder: a preset has no others. "
            f"Received: {', '.join(settings)}"
        )
    return parts


def gpt2_captioner(
    folder: str | PathLike,
    hparams: dict,
    tokenizer: Tokenizer,
    backbone_weights: str | None = None,
) -> tuple[Captioner, str]:
    """A captioner that writes what the folder's GPT-2 writes, until it is trained.

    Args:
        folder: a GPT-2's.
        hparams: from `captioner_hparams`.
        tokenizer: the GPT-2's.
        backbone_weights: "imagenet", "none", or a file; None as in `load_backbone_weights`.

    Returns:
        The captioner, and a line about what was loaded.

    Raises:
        OSError, ValueError: as `load_gpt2` and `load_backbone_weights`, and for hyperparameters
            that do not fit.
    """
    from effcap.captioner import Captioner
    from effcap.weights.backbone_weights import load_backbone_weights
    from effcap.weights.gpt2.loader import load_gpt2

    try:
        captioner = Captioner.from_hparams(hparams, tokenizer)
    except (TypeError, ValueError) as error:  # a width may be a word
        raise ValueError(
            f"Expected hyperparameters that make a captioner. Received: {error}"
        ) from error
    loaded = load_gpt2(captioner, folder)
    load_backbone_weights(getattr(captioner.encoder, "backbone", None), backbone_weights)
    return captioner, loaded
