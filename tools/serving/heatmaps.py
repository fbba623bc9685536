"""Draws where a captioner looked when it wrote each word, to lay over the photo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from effcap.attention.caption_words import caption_tokens, split_words
from effcap.attention.drawing import MOST_OPAQUE, enlarge_map, heat_colors, png_bytes
from effcap.captioning import CaptioningModel
from effcap.display import data_url

if TYPE_CHECKING:
    from effcap.caption import Caption
    from effcap.caption_generator import CaptionGenerator
    from effcap.images import Photo

SIDE = 48  # pixels, largest side; the browser enlarges the pictures smoothly


def caption_words(captioner: CaptionGenerator, caption: Caption) -> list[str]:
    """Returns the words that `word_heatmaps` maps, none for a compiled captioner."""
    tokenizer = captioner.tokenizer
    if tokenizer is None or not isinstance(captioner, CaptioningModel):
        return []
    words = split_words(tokenizer, *caption_tokens(tokenizer, caption))
    return [word.text for word in words]


def word_heatmaps(captioner: Any, photo: Photo, caption: Caption) -> list[tuple[str, str]]:
    """Computes where the captioner looked for each word of a caption.

    Args:
        captioner: Keras captioner of photos.
        photo: a photo.
        caption: one of its captions.

    Returns:
        Each word after the prefix with a PNG as data URL, which covers the whole photo and is the
        more opaque, the more the word drew on a place.

    Raises:
        ValueError: the caption is empty, or the backbone's positions form no grid.
    """
    attention = captioner.attention(photo, caption)
    width, height = attention.photo.size
    scale = SIDE / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    pictures = []
    for heat in attention.maps:
        strength = enlarge_map(heat, size, attention.region)  # (H,W)
        alpha = 255 * MOST_OPAQUE * strength[..., None]  # (H,W,1)
        pixels = np.concatenate([heat_colors(strength), alpha], axis=-1)  # (H,W,4)
        pictures.append(png_bytes(Image.fromarray(pixels.round().astype(np.uint8))))
    addresses = [data_url(data, "png") for data in pictures]
    return list(zip(attention.words, addresses, strict=True))
