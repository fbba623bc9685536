"""Creates a captioner from the published file of a whole captioner."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

from effcap.tokenizers import Tokenizer
from effcap.weights.clipcap import vector_width
from effcap.weights.published import (
    CONVERTERS,
    assumed_settings,
    load_published,
    open_published,
    published_hparams,
)
from effcap.weights.published_tokenizer import published_tokenizer

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.weights.captioner_folder import CaptionerFile
    from effcap.weights.torch_file import TorchFile
    from effcap.weights.tower_file import TowerFile


class PublishedCaptioner(NamedTuple):
    """A captioner with published weights.

    Attributes:
        captioner: the captioner.
        message: lines about what was loaded, skipped and assumed.
        record: source and assumed settings, for `Captioner.save_to_preset`.
    """

    captioner: Captioner
    message: str
    record: dict[str, Any]


def published_captioner(
    path: str | PathLike,
    tokenizer: Tokenizer | None = None,
    overrides: Mapping[str, Any] | None = None,
    clip: str | PathLike | None = None,
) -> PublishedCaptioner:
    """Creates the captioner of a published folder or file, with all its weights.

    Args:
        path: a `.pth` file of VisualGPT, PlayNTell or the original BLIP, a `.pt` file of ClipCap,
            or a folder of transformers with ViT and GPT-2 (`VisionEncoderDecoderModel`) or BLIP
            (`BlipForConditionalGeneration`).
        tokenizer: GPT-2's, or BERT's for BLIP. Its captions start and end as in the original. None
            for the tokenizer in the folder of ViT and GPT-2 or of BLIP, or for a captioner that
            generates no text.
        overrides: changed values, such as `{"decoder": {"num_heads": 12}}`; see
            `published_hparams`. ViT and GPT-2 and BLIP have a section "sampler" too.
        clip: file or folder of the CLIP model that a ClipCap was trained with, as for
            `load_clip`. It is required for ClipCap and for no other system.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file is damaged or of another system, tensors do not fit, or `clip` is missing
            or not needed.

    Example:
        >>> tokenizer = Tokenizer.from_folder("gpt2")
        >>> loaded = published_captioner("coco_weights.pt", tokenizer, clip="ViT-B-32.pt")
        >>> loaded.captioner.generate("dog.jpg")
    """
    from effcap.captioner import Captioner
    from effcap.weights.captioner_folder import open_captioner_file

    captioner_file = open_captioner_file(path)
    if captioner_file is not None:
        if clip is not None:
            raise ValueError(f"{path} has an image tower of its own. Received: clip={str(clip)!r}")
        return _whole_captioner(captioner_file, tokenizer, overrides)
    system, file = open_published(path)
    converter, record = CONVERTERS[system], {"source": str(path), "system": system}
    clip_file = _open_clip(converter.needs_clip, converter.title, path, clip)
    hparams = published_hparams(system, file, overrides)
    if clip_file is not None:
        hparams["encoder"]["backbone"] = _clip_backbone(file, clip_file, overrides)
        record["clip"] = str(clip)
    messages = []
    if tokenizer is not None:
        tokenizer, message = published_tokenizer(system, tokenizer)
        messages += [message] if message else []
    elif converter.end_token is not None:
        messages.append(
            f"no tokenizer: the preset generates no text, and {converter.end_token!r}, which ends "
            "the original's captions, is not recorded"
        )
    try:
        captioner = Captioner.from_hparams(hparams, tokenizer)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Cannot create the {converter.title} of {path}: {error}") from error
    loaded = load_published(captioner, file, overrides)
    if clip_file is not None:
        from effcap.weights.clip_files import CLIP
        from effcap.weights.towers import load_tower_file

        messages.insert(0, load_tower_file(captioner.encoder.backbone, clip_file, CLIP))
    assumed = assumed_settings(system, file, overrides)
    message = "\n".join([loaded, *messages])
    return PublishedCaptioner(captioner, message, {**record, "assumed": assumed})


def _whole_captioner(
    file: CaptionerFile, tokenizer: Tokenizer | None, overrides: Mapping[str, Any] | None
) -> PublishedCaptioner:
    """Returns the captioner of ViT and GPT-2 or of BLIP in a file."""
    from effcap.captioner import Captioner
    from effcap.weights.captioner_folder import (
        changed_hparams,
        describe_settings,
        find_tokenizer,
    )

    config = file.config
    hparams = changed_hparams(config, overrides)
    tokenizer = find_tokenizer(config, tokenizer)
    captioner, loaded = Captioner.from_captioner_file(file, tokenizer, hparams)
    message = "\n".join([loaded, *describe_settings(config, captioner, overrides)])
    record = {"source": str(config.path), "system": config.system, "assumed": config.assumed}
    return PublishedCaptioner(captioner, message, record)


def _open_clip(
    needs_clip: bool, title: str, path: str | PathLike, clip: str | PathLike | None
) -> TowerFile | None:
    """Opens the file of CLIP if the system needs one.

    Raises:
        ValueError: it is missing or not needed.
    """
    from effcap.weights.clip_files import CLIP
    from effcap.weights.tower_file import open_tower_file

    if needs_clip and clip is None:
        raise ValueError(
            f"{path} is a {title}, whose backbone is CLIP: pass the CLIP model that it was trained "
            "with, ViT-B/32 or RN50x4 for the published ones, with --clip FILE|FOLDER"
        )
    if not needs_clip and clip is not None:
        raise ValueError(f"{path} is a {title}, which has no CLIP. Received: clip={str(clip)!r}")
    return None if clip is None else open_tower_file(clip, CLIP)


def _clip_backbone(
    file: TorchFile, clip_file: TowerFile, overrides: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Returns the arguments of the backbone of a ClipCap.

    Raises:
        ValueError: the mapper takes vectors of another width than CLIP's.
    """
    from effcap.weights.clip_sizes import clip_backbone, embedding_width

    width, expected = embedding_width(clip_file), vector_width(file)
    if width != expected:
        raise ValueError(
            f"The mapper of {file.name} takes image vectors of width {expected}; pass the CLIP "
            f"model that it was trained with. Received: {clip_file.path}, whose width is {width}"
        )
    changed = (overrides or {}).get("encoder", {}).get("backbone", {})
    return {**clip_backbone(clip_file), **changed}
