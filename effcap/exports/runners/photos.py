"""Loads photos as in training."""

import numpy as np
from PIL import Image

TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Image.Transpose of EXIF orientations


def load_photo(path, photo):
    """Returns pixels (h,w,3) for "photo" of the manifest: upright, in RGB on white, resized."""
    image = Image.open(path)
    turn, choose = image.getexif().get(274, 1), {"crop": max, "pad": min}.get(photo["fit"])
    target = photo["image_size"][:: 1 if turn > 4 else -1]  # (width, height) as stored
    for is_drafted in (False, True):
        scales = [t / a for t, a in zip(target, image.size, strict=True)]
        scales = [choose(scales)] * 2 if choose else scales
        if not is_drafted:
            size = [max(1, round(a * s)) for a, s in zip(image.size, scales, strict=True)]
            if photo["resample"] is None:  # a JPEG decodes no more pixels than needed
                image.draft(None, [2 * side for side in size])
    if image.mode[0] in "IF":
        raise SystemExit(f"{path}: expected 8 bits per channel. Received: mode {image.mode}")
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
