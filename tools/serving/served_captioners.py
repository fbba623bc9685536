"""The captioners of the server: which there are, what they take, and their batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from effcap.generation_call import check_sampler, pad_rows
from effcap.images import UnreadablePhoto, load_photo, upright_size
from effcap.samplers import Sampler, get
from effcap.samplers.registry import from_config
from effcap.tools.serving.request_error import RequestError
from effcap.tools.serving.sampler_settings import DEFAULT_SAMPLER, parse_sampler

if TYPE_CHECKING:
    from effcap.caption import Caption
    from effcap.caption_generator import CaptionGenerator

UNPROCESSABLE = 422
MAX_PREFIX = 2000  # characters, checked before the prefix is tokenized


@dataclass(frozen=True)
class CaptionSettings:
    """How the photos of a request are captioned; photos with equal settings share batches.

    Attributes:
        preset: name of the captioner.
        sampler: sampler of the captions.
        prefix: text that the captions continue.
    """

    preset: str
    sampler: Sampler
    prefix: str


class ServedCaptioners:
    """The captioners of a server by name.

    Args:
        captioners: captioners of photos by the name that requests give; the first is the default.

    Raises:
        ValueError: there is none, or one does not take photos or has no tokenizer.
    """

    def __init__(self, captioners: Mapping[str, CaptionGenerator]) -> None:
        if not captioners:
            raise ValueError("Expected at least one captioner. Received: none")
        for name, captioner in captioners.items():
            keys = captioner.encoder.input_keys
            if "images" not in keys:
                raise ValueError(f"{name} captions {', '.join(keys)}, not photos")
            if captioner.tokenizer is None:
                raise ValueError(f"{name} has no tokenizer, so it cannot write captions")
        self.by_name = dict(captioners)
        self._tokenizers = {
            name: captioner.tokenizer
            for name, captioner in captioners.items()
            if captioner.tokenizer is not None
        }

    @property
    def names(self) -> list[str]:
        """Names of the captioners, the default first."""
        return list(self.by_name)

    def default_sampler(self, preset: str, prefix_length: int = 0) -> Sampler:
        """Returns the sampler of a captioner, which fits after a prefix of some tokens."""
        captioner = self.by_name[preset]
        sampler = captioner.sampler or get(DEFAULT_SAMPLER)
        longest = max(1, captioner.decoder.max_text_length - prefix_length)
        return replace(sampler, max_new_tokens=min(sampler.max_new_tokens, longest))

    def settings(
        self, preset: str | None, sampler: str | None, fields: Mapping[str, Any], prefix: str | None
    ) -> CaptionSettings:
        """Returns the checked settings of a request.

        Args:
            preset: name of a captioner, None for the first.
            sampler: name of a sampler, None for that of the preset.
            fields: fields of the sampler, as JSON values or text.
            prefix: text that captions continue, None for that of the preset.

        Raises:
            RequestError: a value is wrong, or the captioner cannot generate this.
        """
        preset = preset or self.names[0]
        if preset not in self.by_name:
            raise RequestError(
                UNPROCESSABLE,
                f"Expected preset as one of {', '.join(self.names)}. Received: {preset[:80]!r}",
            )
        if prefix is not None and len(prefix) > MAX_PREFIX:
            raise RequestError(
                UNPROCESSABLE,
                f"Expected a prefix of at most {MAX_PREFIX} characters. Received: {len(prefix)}",
            )
        captioner, tokenizer = self.by_name[preset], self._tokenizers[preset]
        prefix = captioner.prefix if prefix is None else prefix
        try:
            tokens = tokenizer.encode_prefix(prefix)
            config = parse_sampler(sampler, fields)
            if config is None:
                chosen = self.default_sampler(preset, len(tokens))
            else:
                longest = captioner.decoder.max_text_length - len(tokens)
                shorter = max(1, min(Sampler().max_new_tokens, longest))
                chosen = from_config({"max_new_tokens": shorter, **config})
            check_sampler(chosen, captioner.decoder, tokenizer, len(tokens))
        except (TypeError, ValueError) as error:
            raise RequestError(UNPROCESSABLE, " ".join(str(error).split())) from None
        return CaptionSettings(preset, chosen, prefix)

    def load(self, data: bytes, preset: str, max_megapixels: float) -> np.ndarray:
        """Decodes a photo at the size of a captioner.

        Args:
            data: contents of an image file.
            preset: name of the captioner.
            max_megapixels: larger photos are refused before they are decoded.

        Returns:
            (h, w, 3) uint8.

        Raises:
            UnreadablePhoto: the photo is damaged, too large or not a photo.
        """
        check_pixels(data, max_megapixels)
        encoder = self.by_name[preset].encoder
        return load_photo(data, encoder.image_size, encoder.fit, encoder.resample)

    def caption_batch(
        self, settings: CaptionSettings, rows: Sequence[tuple[int, np.ndarray]], batch_size: int
    ) -> list[list[Caption]]:
        """Captions photos of one or several requests.

        Batches have one row or `batch_size` rows, so that two shapes are compiled.

        Args:
            settings: settings of all photos.
            rows: index of each photo in its request, which seeded samplers depend on, and its
                pixels (h, w, 3).
            batch_size: maximum number of rows.

        Returns:
            The captions of each photo, best first.
        """
        drawn_anew = getattr(settings.sampler, "seed", 0) is None
        indices = [row if drawn_anew else index for row, (index, _) in enumerate(rows)]
        size = 1 if len(rows) == 1 else batch_size
        images = pad_rows(np.stack([pixels for _, pixels in rows]), size)  # (B,h,w,3)
        indices += indices[-1:] * (size - len(rows))
        captions = self.by_name[settings.preset].generate_batch(
            {"images": images}, settings.sampler, size, indices, prefix=settings.prefix
        )
        return [
            [caption for caption in found if np.isfinite(caption.score)]
            for found in captions[: len(rows)]
        ]

    def blank(self, preset: str) -> np.ndarray:
        """Returns a photo (h, w, 3) of one color, to compile with."""
        height, width = self.by_name[preset].encoder.image_size
        return np.full((height, width, 3), 127, np.uint8)


def check_pixels(data: bytes, max_megapixels: float) -> None:
    """Checks the size that the header of an image file gives.

    Raises:
        UnreadablePhoto: the photo is damaged, too large or not a photo.
    """
    width, height = upright_size(data)
    if width * height > max_megapixels * 1e6:
        raise UnreadablePhoto(
            "a photo",
            f"expected at most {max_megapixels:g} megapixels. Received: {width} x {height}",
        )
