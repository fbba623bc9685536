"""Results of captioning many inputs, and the loading of captioners."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from effcap.caption import Caption
    from effcap.captioner import Captioner

Name = TypeVar("Name")
DEFAULT_PRESET = "flickr8k-lite0"


@dataclass(frozen=True)
class CaptionResults(Generic[Name]):
    """Captions of many inputs, and the inputs without new ones.

    Attributes:
        captions: names of inputs, such as the paths of photos, with their captions, best first.
        skipped: names of inputs that could not be used, with the reason.
        existing: names of inputs that were left alone, because they have captions.
    """

    captions: list[tuple[Name, list[Caption]]]
    skipped: list[tuple[Name, str]]
    existing: list[Name] = field(default_factory=list)

    def outcomes(self) -> list[dict[str, Any]]:
        """Returns a row for each input: those with captions, those left alone, and those skipped.

        Returns:
            Rows of image, outcome, caption, score and reason; what does not apply is None. The
            outcome is "captioned", "cut" (a caption at the sampler's maximum length), "existing" or
            "skipped".
        """
        rows: list[tuple[Any, ...]] = []
        for name, captions in self.captions:
            best = captions[0]
            outcome = "captioned" if best.is_finished else "cut"
            rows.append((name, outcome, best.text, best.score, None))
        rows += [(name, "existing", None, None, None) for name in self.existing]
        rows += [(name, "skipped", None, None, reason) for name, reason in self.skipped]
        names = ("image", "outcome", "caption", "score", "reason")
        return [dict(zip(names, (str(name), *rest), strict=True)) for name, *rest in rows]


def load_captioner(
    captioner: Captioner | str | PathLike[str], prefix: str | None = None
) -> Captioner:
    """Returns a captioner, or loads a preset given by name or folder.

    Args:
        captioner: captioner, or the name or folder of a preset.
        prefix: text that becomes the captioner's `prefix`. None keeps its own.

    Raises:
        FileNotFoundError: there is no such preset.
        ValueError: the preset is damaged.
    """
    from effcap.captioner import Captioner

    if not isinstance(captioner, Captioner):
        captioner = Captioner.from_preset(captioner)
    if prefix is not None:
        captioner.prefix = prefix
    return captioner


def model_name(model: str | PathLike[str]) -> str:
    """Returns the name of a preset; of the best or last preset of a run, such as "run/best"."""
    path = Path(model)
    return "/".join(path.parts[-2:]) if path.name in ("best", "last") else path.name


def check_batch_size(batch_size: int) -> None:
    """Raises a `ValueError` for a batch size below 1."""
    if batch_size < 1:
        raise ValueError(f"Expected batch_size of at least 1. Received: batch_size={batch_size}")
