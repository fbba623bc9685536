"""Creates a captioner from the GPT-2 in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from effcap.config import load_hparams
from effcap.conversion.backbone_weights import adopt_backbone
from effcap.tokenizers import Tokenizer
from effcap.weights.gpt2.sizes import config_file, gpt2_hparams, matching_variants
from effcap.weights.overrides import override_model_hparams

if TYPE_CHECKING:
    from effcap.captioner import Captioner

DEFAULT_VARIANT = "gpt2-124m"


def captioner_hparams(
    folder: str | PathLike,
    tokenizer: Tokenizer,
    variant: str | PathLike | None = None,
    overrides: Mapping[str, Any] | None = None,
    backbone_weights: str | None = None,
) -> dict:
    """Returns hyperparameters of a captioner whose decoder has the sizes of a folder's GPT-2.

    Args:
        folder: folder of the GPT-2.
        tokenizer: its tokens beyond the GPT-2's vocabulary become added special tokens.
        variant: source of everything but the decoder's sizes (default: the variant of the same
            sizes, or "gpt2-124m"). If the GPT-2's width is not a multiple of the encoder's number
            of heads, the encoder takes the decoder's number of heads.
        overrides: changed values, such as `{"decoder": {"dropout": 0.2}}`.
        backbone_weights: as for `adopt_backbone`, which changes the variant's backbone.

    Raises:
        FileNotFoundError: there is no such folder or variant.
        ValueError: an override is of another section than encoder or decoder, or the tokenizer's
            vocabulary is larger than the GPT-2's.
    """
    sizes = gpt2_hparams(folder)
    base_size = sizes["vocabulary_size"]
    if tokenizer.base_vocabulary_size > base_size:
        raise ValueError(
            f"Expected a tokenizer of at most the {base_size} tokens in {config_file(folder)}. "
            f"Received: one of {tokenizer.base_vocabulary_size}"
        )
    variant = variant or next(iter(matching_variants(sizes)), DEFAULT_VARIANT)
    hparams = adopt_backbone(load_hparams(variant), backbone_weights)
    encoder, decoder = dict(hparams["encoder"]), hparams["decoder"] | sizes
    num_special_tokens = max(0, tokenizer.vocabulary_size - base_size)
    decoder |= {
        "vocabulary_size": base_size + num_special_tokens,
        "num_special_tokens": num_special_tokens,
    }
    if sizes["hidden_dim"] % encoder.get("num_heads", 1):
        encoder["num_heads"] = sizes["num_heads"]
    return override_model_hparams({"encoder": encoder, "decoder": decoder}, overrides)


def gpt2_captioner(
    folder: str | PathLike,
    hparams: Mapping[str, Any],
    tokenizer: Tokenizer,
    backbone_weights: str | None = None,
) -> tuple[Captioner, str]:
    """Creates a captioner that generates the same text as the folder's GPT-2, until it is trained.

    Args:
        folder: folder of the GPT-2.
        hparams: from `captioner_hparams`.
        tokenizer: the GPT-2's.
        backbone_weights: "imagenet", "none", a file or a preset (default: as in
            `load_backbone_weights`).

    Returns:
        The captioner, and a message of one or several lines about the loaded weights.

    Raises:
        OSError, ValueError: as in `load_gpt2` and `load_backbone_weights`, and for hyperparameters
            that do not fit each other.
    """
    from effcap.captioner import Captioner
    from effcap.conversion.backbone_weights import load_backbone_weights
    from effcap.weights.gpt2.loader import load_gpt2

    try:
        captioner = Captioner.from_hparams(hparams, tokenizer)
    except (TypeError, ValueError) as error:  # a width may be a string
        raise ValueError(f"Cannot create a captioner of these hyperparameters: {error}") from error
    message = load_gpt2(captioner, folder)
    backbone = getattr(captioner.encoder, "backbone", None)
    loaded = load_backbone_weights(backbone, backbone_weights)
    return captioner, "\n".join(filter(None, [message, loaded]))
