"""Computes where a captioner looked for each word of a caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from effcap.attention.attention_page import attention_page
from effcap.attention.caption_words import caption_tokens, split_words
from effcap.attention.drawing import (
    Sheet,
    Tile,
    draw_sheet,
    overlay,
    peak_text,
    save_pictures,
)
from effcap.attention.grad_cam import grad_cam
from effcap.attention.selection import Choice, select_weights
from effcap.attention.weights import attention_weights
from effcap.caption import Caption
from effcap.display import jpeg_bytes
from effcap.images import Fit, Photo, Region, load_photos, load_thumbnail, visible_box

if TYPE_CHECKING:
    from effcap.decoders.base import Decoder
    from effcap.encoders.base import PhotoEncoder
    from effcap.tokenizers import Tokenizer

PHOTO_SIDE = 640  # pixels, largest side of the photo in pictures


@dataclass(frozen=True, eq=False)
class PhotoAttention:
    """Where a captioner looked for each of W words of a caption.

    Attention is not an explanation: it shows where the text read from the photo's features, which
    know more than their own place in the photo, and not why a word was chosen.

    Attributes:
        photo: the upright photo, reduced to at most 640 pixels.
        caption: text of the caption.
        words: the W words.
        maps: (W, h, w) float32, not negative. Attention weights are those of the positions of the
            backbone, which sum to at most 1 over a map. Grad-CAM has a scale of its own.
        region: the part of the photo that maps cover (left, top, right, bottom), as fractions of
            its sides; beyond 0 and 1 where the photo was padded.
        description: what the maps are, such as the layers and heads averaged.
    """

    photo: Image.Image
    caption: str
    words: tuple[str, ...]
    maps: np.ndarray
    region: Region
    description: str

    def __repr__(self) -> str:
        return (
            f"PhotoAttention(caption={self.caption!r}, maps of shape {self.maps.shape}, "
            f"description={self.description!r})"
        )

    def overlay(self, index: int) -> Image.Image:
        """Returns the photo with the map of a word drawn over it, in the size of `photo`.

        Colors are relative to the highest value of the word's own map.
        """
        return overlay(self.photo, self.maps[index], self.region)

    def plot(self, columns: int = 5) -> Image.Image:
        """Returns a picture with the photo and, for each word, where the captioner looked.

        Args:
            columns: maximum number of photos in a row. Default 5.
        """
        return draw_sheet(self.sheet(), columns)

    def sheet(self) -> Sheet:
        """Returns what pictures show: the photo, the words with their maps, and the description."""
        tiles = [
            Tile(word, peak_text(self.maps[i]), self.overlay(i))
            for i, word in enumerate(self.words)
        ]
        return Sheet(self.photo, self.caption, tiles, self.description)

    def save(self, path: str | PathLike) -> None:
        """Writes a picture: `.png` as `plot` draws it, or `.html`, where one points at words.

        Raises:
            ValueError: the suffix is another.
            OSError: the file cannot be written.
        """
        save_attention(path, [self])

    def _repr_jpeg_(self) -> bytes:
        """Returns the picture that a notebook shows."""
        return jpeg_bytes(self.plot())


def save_attention(path: str | PathLike, attentions: Sequence[PhotoAttention]) -> None:
    """Writes the pictures of one or more photos into one file; see `PhotoAttention.save`.

    Raises:
        ValueError: the suffix is neither `.png` nor `.html`, or there is no photo.
        OSError: the file cannot be written.
    """
    save_pictures(
        path,
        lambda: [attention.plot() for attention in attentions],
        lambda: attention_page([attention.sheet() for attention in attentions]),
    )


def photo_attention(
    model: tuple[PhotoEncoder, Decoder, Tokenizer],
    photo: Photo,
    caption: str | Caption,
    layers: Choice = None,
    heads: Choice = None,
) -> PhotoAttention:
    """Computes where a captioner looked for each word of a caption.

    Args:
        model: encoder, decoder and tokenizer of the captioner.
        photo, caption, layers, heads: as in `Captioner.attention`, as are the errors.
    """
    encoder, decoder, tokenizer = model
    thumbnail = load_thumbnail(photo, (PHOTO_SIDE, PHOTO_SIDE))
    images = load_photos([photo], encoder.image_size, encoder.fit, resample=encoder.resample)
    text = caption if isinstance(caption, str) else caption.text
    tokens, start = caption_tokens(tokenizer, caption)
    if len(tokens) > decoder.max_text_length:
        raise ValueError(
            f"Expected a caption of at most {decoder.max_text_length} tokens. "
            f"Received: {len(tokens)} tokens"
        )
    words = split_words(tokenizer, tokens, start)
    if not words:
        raise ValueError(f"Expected a caption with words. Received: {text!r}")
    if decoder.has_prefix:
        if layers is not None or heads is not None:
            raise ValueError(
                "The text of this captioner attends to a prefix and not to the photo, so there are "
                f"no layers and heads to choose. Received: layers={layers!r}, heads={heads!r}"
            )
        maps, description = grad_cam(model, images, tokens, words)
    else:
        grid, leading = encoder.backbone.grid
        # The step that chose the last token has the tokens before it as input.
        _, weights = attention_weights(*model, {"images": images}, [tokens[:-1]])
        mean, description = select_weights([layer[0][0] for layer in weights], layers, heads)
        by_word = np.stack([mean[word.start : word.stop].mean(axis=0) for word in words])  # (W,S)
        maps = by_word[:, leading:].reshape(-1, *grid)  # (W,S) -> (W,h,w)
        if leading:
            share = float(by_word[:, 0].mean())
            description += f"; {share:.0%} of it is on the token of the whole photo, not shown"
    return PhotoAttention(
        photo=thumbnail,
        caption=text,
        words=tuple(word.text for word in words),
        maps=maps.astype(np.float32),
        region=seen_region(thumbnail.size, encoder.image_size, encoder.fit),
        description=description,
    )


def seen_region(size: tuple[int, int], image_size: tuple[int, int], fit: Fit) -> Region:
    """Returns the part of a photo that an image of the model covers, as fractions of its sides.

    Args:
        size: (width, height) of the photo.
        image_size: (height, width) of the model's images.
        fit: how photos are fitted to them.
    """
    (left, top, right, bottom), (width, height) = visible_box(size, image_size, fit)
    margin_x = (image_size[1] - width) / 2 / width  # of padding, as fractions of the photo's sides
    margin_y = (image_size[0] - height) / 2 / height
    return (
        left / size[0] - margin_x,
        top / size[1] - margin_y,
        right / size[0] + margin_x,
        bottom / size[1] + margin_y,
    )
