"""Reads how transformers preprocesses photos, as arguments of a `Backbone`. Imports no Keras."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effcap.backbones.pixel_statistics import CLIP_MEAN, CLIP_STDDEV, HALF
from effcap.config import read_json

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
SECTION = "image_processor"  # of processor_config.json, where newer versions record it
RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers
RESCALE_FACTOR = 1 / 255


@dataclass(frozen=True)
class ProcessorClass:
    """The defaults of a kind of image processor.

    Attributes:
        names: names of the classes, without the suffixes "Fast" and "Pil".
        side: height and width in pixels.
        resample: filter.
        mean, stddev: of the channels, for pixels 0..1.
        has_stray_padding: whether files record a padding that the class does not do.
    """

    names: tuple[str, ...]
    side: int
    resample: str
    mean: Sequence[float]
    stddev: Sequence[float]
    has_stray_padding: bool = False


VIT_PROCESSOR = ProcessorClass(
    ("ViTImageProcessor", "ViTFeatureExtractor"), 224, "bilinear", HALF, HALF
)
BLIP_PROCESSOR = ProcessorClass(
    ("BlipImageProcessor", "BlipFeatureExtractor"), 384, "bicubic", CLIP_MEAN, CLIP_STDDEV, True
)
PROCESSORS = (VIT_PROCESSOR, BLIP_PROCESSOR)


def read_image_processor(
    folder: Path, usual: ProcessorClass, image_size: Sequence[int]
) -> tuple[dict[str, Any], list[str]]:
    """Reads the preprocessing of photos that is recorded in a folder.

    Args:
        folder: folder with preprocessor_config.json or processor_config.json.
        usual: the usual image processor of the model, for what neither file records.
        image_size: height and width in pixels that the model takes.

    Returns:
        The arguments "resample", and "scale" and "offset" unless they are those of `usual`, of a
        `Backbone`; and messages about what is assumed.

    Raises:
        ValueError: a file is damaged, or records something that `effcap.load_photo` does not do.
    """
    path, settings = find_settings(folder)
    if path is None:
        name = usual.names[0]
        return {"resample": usual.resample}, [
            f"assumed the preprocessing of {name}, because there is no {PREPROCESSOR} in {folder}"
        ]
    defaults = find_class(path, settings, usual)
    check_supported(path, settings, defaults)
    notes = check_size(path, settings, defaults, image_size)
    number = settings.get("resample")
    if number is not None and number not in range(len(RESAMPLE)):
        raise ValueError(f"Expected resample from 0 to 5 in {path}. Received: resample={number!r}")
    arguments: dict[str, Any] = {
        "resample": defaults.resample if number is None else RESAMPLE[number]
    }
    factor = 1.0
    if settings.get("do_rescale", True):
        factor = read_number(path, settings.get("rescale_factor", RESCALE_FACTOR))
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    stddev: tuple[float, ...] = (1.0, 1.0, 1.0)
    if settings.get("do_normalize", True):
        mean = read_channels(path, settings, "image_mean", defaults.mean)
        stddev = read_channels(path, settings, "image_std", defaults.stddev)
    if not is_usual((factor, *mean, *stddev), usual):
        arguments["scale"] = [factor / x for x in stddev]
        arguments["offset"] = [-m / x for m, x in zip(mean, stddev, strict=True)]
    return arguments, notes


def find_settings(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """Returns the file that records the preprocessing, if there is one, and its contents.

    Raises:
        ValueError: it is not a JSON object.
    """
    for name in (PREPROCESSOR, PROCESSOR):
        path = folder / name
        if path.is_file():
            settings: Any = read_json(path)
            if name == PROCESSOR and isinstance(settings, dict):
                settings = settings.get(SECTION)
            if isinstance(settings, dict):
                return path, settings
            if name == PREPROCESSOR:
                raise ValueError(f"Expected a JSON object in {path}. Received: {settings!r}")
    return None, {}


def find_class(path: Path, settings: Mapping[str, Any], usual: ProcessorClass) -> ProcessorClass:
    """Returns the defaults of the class of image processor that a file names, if it does.

    Raises:
        ValueError: it names another class.
    """
    name = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    if name is None:
        return usual
    for known in PROCESSORS:
        if str(name).removesuffix("Fast").removesuffix("Pil") in known.names:
            return known
    names = ", ".join(known.names[0] for known in PROCESSORS)
    raise ValueError(f"Expected an image processor out of {names} in {path}. Received: {name!r}")


def check_supported(path: Path, settings: Mapping[str, Any], defaults: ProcessorClass) -> None:
    """Checks that photos are resized, and not cropped or padded.

    Raises:
        ValueError: they are not, or they are.
    """
    if not settings.get("do_resize", True):
        raise ValueError(
            f"{path} records do_resize=false, but EffCap resizes every photo to the size that the "
            "model takes. Set do_resize to true"
        )
    is_padded = settings.get("do_pad") and not defaults.has_stray_padding
    for name, value in (("do_pad", is_padded), ("do_center_crop", settings.get("do_center_crop"))):
        if value:
            raise ValueError(
                f"{path} records {name}=true, but EffCap resizes photos to exactly the size that "
                f"the model takes. Set {name} to false if the model was trained so"
            )


def check_size(
    path: Path, settings: Mapping[str, Any], defaults: ProcessorClass, image_size: Sequence[int]
) -> list[str]:
    """Checks that photos are resized to what the model takes, and returns messages.

    Raises:
        ValueError: they are not, or the size is malformed.
    """
    size, notes = settings.get("size", defaults.side), []
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        # transformers can use it on square photos only, as the model takes a fixed size.
        size = size["shortest_edge"]
        notes.append(f"photos are resized to exactly {size}x{size} (shortest_edge in {path})")
    if isinstance(size, Mapping):
        size = [size.get("height"), size.get("width")]
    elif isinstance(size, int):
        size = [size, size]
    if not isinstance(size, list | tuple) or list(size) != list(image_size):
        height, width = image_size
        raise ValueError(
            f"Expected photos of the size that the model takes, {height}x{width}, in {path}. "
            f"Received: size={settings.get('size', defaults.side)!r}"
        )
    return notes


def read_number(path: Path, value: Any) -> float:
    """Returns the rescale factor as a float.

    Raises:
        ValueError: it is not a finite number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(
            f"Expected rescale_factor in {path} to be a number. Received: rescale_factor={value!r}"
        )
    return float(value)


def read_channels(
    path: Path, settings: Mapping[str, Any], name: str, default: Sequence[float]
) -> tuple[float, ...]:
    """Returns the mean or the standard deviation of the channels.

    Raises:
        ValueError: it is not one number or three, or a standard deviation is not positive.
    """
    value: Any = settings.get(name)
    value = default if value is None else value
    values = value if isinstance(value, list | tuple) else [value] * 3
    if len(values) != 3 or not all(
        isinstance(x, int | float) and math.isfinite(x) and (x > 0 or name == "image_mean")
        for x in values
    ):
        raise ValueError(
            f"Expected a number for each of three channels as {name} in {path}. "
            f"Received: {name}={value!r}"
        )
    return tuple(float(x) for x in values)


def is_usual(numbers: Sequence[float], usual: ProcessorClass) -> bool:
    """Returns whether a factor, means and standard deviations are those of a class."""
    expected = (RESCALE_FACTOR, *usual.mean, *usual.stddev)
    return all(math.isclose(x, y, rel_tol=1e-6) for x, y in zip(numbers, expected, strict=True))
