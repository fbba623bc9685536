"""Playlists into captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from effcap.tools.captioning.playlist_attention import looked_at, row_attention
from effcap.trainers.data.playlists.artists import unmask_artists
from effcap.trainers.data.playlists.caption_formats import (
    CaptionFormat,
    restore_caption,
    split_caption,
)
from effcap.trainers.data.playlists.playlist import Playlist
from effcap.trainers.data.playlists.playlist_features import (
    PlaylistFeatures,
    batch_features,
    longest_rows,
)

if TYPE_CHECKING:
    from effcap.caption import Caption
    from effcap.captioner import Captioner
    from effcap.samplers.base import Sampler

Featured = tuple[Playlist, PlaylistFeatures]


@dataclass(frozen=True)
class PlaylistCaption:
    """The caption of a playlist.

    Attributes:
        id: of the playlist.
        text: the caption, with the names of artists, as the data have captions.
        score: the sampler's.
        attention: what was looked at, as of `looked_at`; empty where that was not asked for.
    """

    id: str
    text: str
    score: float
    attention: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Of a caption with a title; otherwise empty."""
        return split_caption(self.text)[0]

    @property
    def description(self) -> str:
        """Of a caption with a description; otherwise empty."""
        return split_caption(self.text)[1]


def caption_playlists(
    captioner: Captioner,
    playlists: Sequence[Featured],
    sampler: Sampler | None = None,
    form: CaptionFormat = "as-is",
    batch_size: int = 8,
    attention: bool = False,
) -> Iterator[PlaylistCaption]:
    """Captions playlists, one after the other.

    Args:
        captioner: one of playlists.
        playlists: with their features, as of `features_of`.
        sampler: of `effcap.samplers`; `Beam()` by default.
        form: that the captioner was trained on.
        batch_size: playlists captioned at once.
        attention: also tell what was looked at.

    Example:
        >>> playlist = read_playlists("playlist.json")[0]
        >>> tags = TagEmbeddings.from_file("discogs_tags_embeddings.npy")
        >>> found = features_of(playlist, captioner.encoder.modalities, tags=tags)
        >>> next(caption_playlists(captioner, [(playlist, found)])).text
    """
    rows = longest_rows([features for _, features in playlists])
    for start in range(0, len(playlists), batch_size):
        group = playlists[start : start + batch_size]
        inputs = batch_features([features for _, features in group], rows)
        best = [options[0] for options in captioner.generate_batch(inputs, sampler, batch_size)]
        looked = _attention(captioner, inputs, group, best) if attention else [{}] * len(group)
        for (playlist, _), caption, attended in zip(group, best, looked, strict=True):
            text = unmask_artists(caption.text, list(playlist.artists))
            yield PlaylistCaption(playlist.id, restore_caption(text, form), caption.score, attended)


def _attention(
    captioner: Captioner,
    inputs: dict[str, np.ndarray],
    group: Sequence[Featured],
    captions: Sequence[Caption],
) -> list[dict[str, list[dict[str, Any]]]]:
    """For each playlist of a batch, what was looked at."""
    tokens, layers = captioner.attention(inputs, [caption.tokens for caption in captions])
    found = []
    for row, ((_, features), caption) in enumerate(zip(group, captions, strict=True)):
        written = tokens[row, : len(caption.tokens) + 1]  # with the end of text
        words = [captioner.tokenizer.decode([token]) or "(end)" for token in written]
        weights = dict(zip(inputs, row_attention(layers, row, len(words)), strict=True))
        found.append(looked_at(weights, features.rows, words))
    return found
