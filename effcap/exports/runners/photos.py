"""Loads photos as in training, and other inputs."""

import sys

import numpy as np
from PIL import Image

TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Image.Transpose of EXIF orientations


def placement(image, photo):
    """Returns the EXIF orientation, the stored (width, height) to resize to, and the scales."""
    turn, choose = image.getexif().get(274), {"crop": max, "pad": min}.get(photo["fit"])
    target = photo["image_size"][:: 1 if turn in (5, 6, 7, 8) else -1]
    scales = [t / a for t, a in zip(target, image.size, strict=True)]
    return turn, target, [choose(scales)] * 2 if choose else scales


def load_photo(path, photo):
    """Returns pixels (h,w,3) for "photo" of the manifest: upright, in RGB on white, resized."""
    image = Image.open(path)
    _, target, scales = placement(image, photo)
    size = [max(1, round(a * s)) for a, s in zip(image.size, scales, strict=True)]
    if photo["resample"] is None:
        image.draft(None, [2 * side for side in size])  # a JPEG decodes no more pixels than needed
    image.load()  # which turns a TIFF
    turn, target, scales = placement(image, photo)
    size = [max(1, round(a * s)) for a, s in zip(image.size, scales, strict=True)]
    if image.mode[0] in "IF":
        raise ValueError(f"expected 8 bits per channel. Received: mode {image.mode}")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    seen = [min(a, t / s) for a, t, s in zip(image.size, target, scales, strict=True)]
    margins = [(a - b) / 2 for a, b in zip(image.size, seen, strict=True)]
    box, size = [*margins, *map(sum, zip(margins, seen, strict=True))], [*map(min, size, target)]
    method = Image.Resampling[(photo["resample"] or "bicubic").upper()]
    image = image.convert("RGB").resize(size, method, box, None if photo["resample"] else 2.0)
    image = image.transpose(TURNS[turn]) if turn in TURNS else image
    framed = Image.new("RGB", photo["image_size"][::-1])
    framed.paste(image, [(a - b) // 2 for a, b in zip(framed.size, image.size, strict=True)])
    return np.asarray(framed, np.float32)


def load_inputs(path, manifest):
    """Returns the inputs of a photo or of an .npz file, with arrays (1,...); None if damaged."""
    try:
        if manifest["photo"]:
            return {"images": load_photo(path, manifest["photo"])[None]}
        with np.load(path) as arrays:
            return {name: arrays[name][:1] for name in manifest["inputs"]}
    except (OSError, KeyError, ValueError) as error:
        print(f"skipped {path}: {error}", file=sys.stderr)
