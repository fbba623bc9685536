"""Results of captioning many inputs, and the loading of captioners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from effcap.precision import check_engine

if TYPE_CHECKING:
    from effcap.caption import Caption
    from effcap.caption_generator import CaptionGenerator
    from effcap.samplers import Sampler

Name = TypeVar("Name")
DEFAULT_PRESET = "flickr8k-lite0"


@dataclass(frozen=True)
class CaptionResults(Generic[Name]):
    """Captions of many inputs, and the inputs without new ones.

    Attributes:
        captions: names of inputs, such as the paths of photos, with their captions, best first.
        skipped: names of inputs that could not be used, with the reason.
        existing: names of inputs that were left alone, because they have captions.
        uncertain: names of inputs that are left for a person, with their captions: the best one's
            confidence is below the minimum.
    """

    captions: list[tuple[Name, list[Caption]]]
    skipped: list[tuple[Name, str]]
    existing: list[Name] = field(default_factory=list)
    uncertain: list[tuple[Name, list[Caption]]] = field(default_factory=list)

    def __repr__(self) -> str:
        return (
            f"CaptionResults({len(self.captions)} with captions, {len(self.skipped)} skipped, "
            f"{len(self.existing)} existing, {len(self.uncertain)} uncertain)"
        )

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: the first photos with their captions, and the others."""
        from effcap.display import list_html, photo_html

        blocks = (
            photo_html(
                name if isinstance(name, Path) else None,
                (caption._repr_html_() for caption in captions),
                name.name if isinstance(name, Path) else str(name),
            )
            for name, captions in self.captions
        )
        counts = {
            "skipped": len(self.skipped),
            "existing": len(self.existing),
            "uncertain": len(self.uncertain),
        }
        others = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        return list_html(blocks, len(self.captions), f"<div>{others}</div>" if others else "")

    def outcomes(self) -> list[dict[str, Any]]:
        """Returns a row for each input, whether it has captions or not.

        Returns:
            Rows of image, outcome, caption, score, confidence and reason; what does not apply is
            None. The outcome is "captioned", "cut" (a caption at the sampler's maximum length),
            "uncertain", "existing" or "skipped".
        """
        rows: list[tuple[Any, ...]] = []
        for name, (best, *_) in self.captions:
            outcome = "captioned" if best.is_finished else "cut"
            rows.append((name, outcome, best.text, best.score, best.confidence, None))
        for name, (best, *_) in self.uncertain:
            rows.append((name, "uncertain", best.text, best.score, best.confidence, None))
        rows += [(name, "existing", None, None, None, None) for name in self.existing]
        rows += [(name, "skipped", None, None, None, reason) for name, reason in self.skipped]
        names = ("image", "outcome", "caption", "score", "confidence", "reason")
        return [dict(zip(names, (str(name), *rest), strict=True)) for name, *rest in rows]


def load_captioner(
    captioner: CaptionGenerator | str | PathLike[str],
    prefix: str | None = None,
    precision: str | None = None,
    engine: str | None = None,
) -> Any:
    """Returns a captioner, or loads a preset given by name or folder.

    Args:
        captioner: captioner, or the name or folder of a preset.
        prefix: text that becomes the captioner's `prefix`. None keeps its own.
        precision: arithmetic of a preset that is loaded: "float32", "bfloat16", or "int8" with
            OpenVINO. Default "float32".
        engine: what runs a preset that is loaded: "keras" (default), or "openvino", which is
            faster on a processor.

    Returns:
        A `Captioner`; with OpenVINO a `CompiledCaptioner`.

    Raises:
        FileNotFoundError: there is no such preset.
        ImportError: the engine is not installed.
        ValueError: the preset is damaged, or there is no such engine or precision.
    """
    if isinstance(captioner, str | PathLike):
        check_engine(engine or "keras", precision or "float32")
        if engine in (None, "keras"):
            from effcap.captioner import Captioner

            captioner = Captioner.from_preset(captioner, precision=precision)
        else:
            from effcap.conversion.compiled_preset import load_compiled

            captioner = load_compiled(captioner, engine, precision or "float32")
    if prefix is not None:
        captioner.prefix = prefix
    return captioner


def preset_sampler(preset: str | PathLike[str]) -> Sampler | None:
    """Returns the sampler of a preset given by name or folder, without loading it; None for none.

    Raises:
        FileNotFoundError: there is no such preset.
        ValueError: its configuration is damaged.
    """
    from effcap.presets import preset_folder, read_config
    from effcap.samplers.registry import from_config
    from effcap.weights.captioner_config import SAMPLER, is_captioner_folder, read_captioner_config

    folder = preset_folder(preset)
    if is_captioner_folder(folder):
        config = read_captioner_config(folder).hparams[SAMPLER]
    else:
        config = read_config(folder).get(SAMPLER)
    return None if config is None else from_config(config)


def model_name(model: str | PathLike[str]) -> str:
    """Returns a short name of a preset, as `effcap.presets.preset_name` does."""
    from effcap.presets import preset_name

    return preset_name(model)


def check_min_confidence(min_confidence: float) -> None:
    """Raises a `ValueError` for a minimum confidence that is not in 0..1."""
    if not 0 <= min_confidence <= 1:
        raise ValueError(
            f"Expected min_confidence in 0..1. Received: min_confidence={min_confidence}"
        )


def check_batch_size(batch_size: int) -> None:
    """Raises a `ValueError` for a batch size below 1."""
    if batch_size < 1:
        raise ValueError(f"Expected batch_size of at least 1. Received: batch_size={batch_size}")


def check_some_used(num_photos: int, skipped: Sequence[tuple[object, str]]) -> None:
    """Raises a `ValueError` if all photos were skipped."""
    if skipped and num_photos == len(skipped):
        path, reason = skipped[0]
        raise ValueError(f"None of the {num_photos} photos can be used, such as {path}: {reason}")
