"""Captions playlists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from effcap.presets import preset_folder, read_config, read_record
from effcap.tools.captioning.playlist_attention import (
    RowAttention,
    mean_attention,
    rank_rows,
    token_words,
)
from effcap.tools.captioning.results import check_batch_size, load_captioner
from effcap.tools.features.playlists import (
    FeatureSources,
    FeaturizedPlaylists,
    compute_playlist_features,
)
from effcap.tools.reports.attention_bars import draw_bars, save_bars
from effcap.trainers.data.playlists.artists import unmask_artists
from effcap.trainers.data.playlists.caption_formats import (
    CAPTION_FORMATS,
    CaptionFormat,
    check_caption_format,
    restore_caption,
    split_caption,
    strip_markers,
)
from effcap.trainers.data.playlists.playlist import Playlist
from effcap.trainers.data.playlists.playlist_features import (
    PlaylistFeatures,
    max_rows,
    stack_features,
)
from effcap.utils.progress import track

if TYPE_CHECKING:
    from PIL import Image

    from effcap.caption import Caption
    from effcap.caption_generator import CaptionGenerator
    from effcap.samplers import Sampler

Ranking = dict[str, list[RowAttention]]  # rows by modality, see `rank_rows`


@dataclass(frozen=True)
class PlaylistCaption:
    """The caption of a playlist.

    Attributes:
        id: id of the playlist.
        text: caption in the data's format, with artist names.
        score: score of the caption by the sampler.
        attention: attention to the rows of each modality, see `rank_rows`; empty unless requested.
        missing: groups of the sampler's `include` of which the text contains no word.
        excluded: phrases of the sampler's `exclude` in the text, which came in with artist names.
    """

    id: str
    text: str
    score: float
    attention: Ranking = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Title in the caption; empty if it has none."""
        return split_caption(self.text)[0]

    @property
    def description(self) -> str:
        """Description in the caption; empty if it has none."""
        return split_caption(self.text)[1]

    def plot(self) -> Image.Image:
        """Returns a picture of the attention to each track, tag and artist.

        Raises:
            ValueError: the caption was generated without attention.
        """
        if not self.attention:
            raise ValueError("There is no attention: call caption_playlists(..., attention=True)")
        return draw_bars(self.text, self.attention)

    def to_json(self) -> dict[str, Any]:
        """Returns the caption as a JSON object, without empty fields."""
        optional = {
            "title": self.title,
            "description": self.description,
            "attention": {
                modality: [asdict(row) for row in rows] for modality, rows in self.attention.items()
            },
            "missing": list(self.missing),
            "excluded": list(self.excluded),
        }
        present = {name: value for name, value in optional.items() if value}
        return {"id": self.id, "caption": self.text, "score": self.score, **present}


@dataclass(frozen=True)
class CaptionedPlaylists:
    """Captions of playlists.

    Attributes:
        captions: captions of the playlists that have features.
        skipped: ids of the other playlists, with the reason.
        notes: lines about missing features of the captioned playlists.
    """

    captions: list[PlaylistCaption]
    skipped: list[tuple[str, str]]
    notes: list[str]

    def save_attention(self, path: str | PathLike[str]) -> None:
        """Writes the attention of all captions as bars, `.png` or `.html`.

        Raises:
            ValueError: the suffix is another, or the captions were generated without attention.
            OSError: the file cannot be written.
        """
        shown = {f"{x.id}: {x.text}": x.attention for x in self.captions if x.attention}
        if self.captions and not shown:
            raise ValueError("There is no attention: call caption_playlists(..., attention=True)")
        save_bars(path, shown)


def caption_playlists(
    playlists: str | PathLike[str] | Iterable[str | PathLike[str] | Playlist],
    captioner: CaptionGenerator | str | PathLike[str],
    sampler: str | Sampler | None = None,
    *,
    sources: FeatureSources | None = None,
    caption_format: CaptionFormat | None = None,
    batch_size: int = 8,
    attention: bool = False,
) -> CaptionedPlaylists:
    """Captions playlists.

    Args:
        playlists: JSON files (see `effcap.trainers.data.playlists.read_playlists`) or playlists.
        captioner: captioner of playlists, or the name or folder of a preset.
        sampler: sampler, or its name (default: that of the captioner). Its `include` and `exclude`
            apply to the caption before `artist0` becomes a name; `missing` and `excluded` of the
            result are those of the final text.
        sources: sources of the features. Modalities without a source are reported in the `notes`
            of the result.
        caption_format: format that the captioner was trained on. None takes the one recorded in the
            preset, or "as-is".
        batch_size: playlists per batch.
        attention: also return the attention to tracks, tags and artists.

    Returns:
        Captions of playlists with features, and ids of skipped playlists with the reason.

    Raises:
        FileNotFoundError: a file or the preset is missing.
        ValueError: a file has another structure, the captioner does not take playlists, or no
            playlist has features.

    Example:
        >>> sources = FeatureSources(tags="discogs_tags_embeddings.npy")
        >>> captioned = caption_playlists("playlist.json", "runs/playntell", sources=sources)
        >>> captioned.captions[0].text
        '<title> Rainy days <description> slow folk songs'
    """
    from effcap.samplers import get

    check_batch_size(batch_size)
    caption_format = caption_format or trained_caption_format(captioner)
    check_caption_format(caption_format)
    featurized = compute_playlist_features(playlists, playlist_modalities(captioner), sources)
    results = CaptionedPlaylists([], featurized.skipped, featurized.notes)
    loaded = load_captioner(captioner)
    words = loaded.sampler if sampler is None else get(sampler)
    captioned = _generate(loaded, featurized, sampler, batch_size, attention)
    for playlist, caption, rows in track(captioned, len(featurized.playlists), "captioning"):
        text = restore_caption(unmask_artists(caption.text, list(playlist.artists)), caption_format)
        missing, excluded = _check_words(text, words)
        results.captions.append(
            PlaylistCaption(playlist.id, text, caption.score, rows, missing, excluded)
        )
    return results


def _check_words(text: str, sampler: Sampler | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the groups of `include` that a caption lacks, and the phrases of `exclude` in it."""
    from effcap.phrases import contains, missing_groups

    if sampler is None:
        return (), ()
    text = strip_markers(text)
    excluded = tuple(phrase for phrase in sampler.exclude if contains(text, phrase))
    return missing_groups(text, sampler.include), excluded


def _generate(
    captioner: CaptionGenerator,
    featurized: FeaturizedPlaylists,
    sampler: str | Sampler | None,
    batch_size: int,
    attention: bool,
) -> Iterator[tuple[Playlist, Caption, Ranking]]:
    """Yields each playlist with its best caption and the attention to its rows."""
    num_rows = max_rows(featurized.features)
    for start in range(0, len(featurized.playlists), batch_size):
        playlists = featurized.playlists[start : start + batch_size]
        features = featurized.features[start : start + batch_size]
        inputs = stack_features(features, num_rows)
        indices = range(start, start + len(playlists))
        captions = captioner.generate_batch(inputs, sampler, batch_size, indices)
        best = [alternatives[0] for alternatives in captions]
        rankings: list[Ranking] = [{} for _ in playlists]
        if attention:
            rankings = _rank_rows(captioner, inputs, features, best)
        yield from zip(playlists, best, rankings, strict=True)


def _rank_rows(
    captioner: CaptionGenerator,
    inputs: dict[str, np.ndarray],
    features: Sequence[PlaylistFeatures],
    captions: Sequence[Caption],
) -> list[Ranking]:
    """Ranks the rows of each playlist of a batch by attention."""
    from effcap.captioning import CaptioningModel

    if not isinstance(captioner, CaptioningModel):
        raise ValueError("attention=True requires a Keras captioner, not a compiled one")
    _, layers = captioner.attention_weights(inputs, [caption.tokens for caption in captions])
    tokenizer = captioner.tokenizer
    assert tokenizer is not None  # `attention` requires it
    rankings = []
    for index, (playlist, caption) in enumerate(zip(features, captions, strict=True)):
        words = token_words(tokenizer, caption.tokens)
        arrays = mean_attention(layers, index, len(words))  # (T, S) for each modality
        weights = dict(zip(inputs, arrays, strict=True))
        rankings.append(rank_rows(weights, playlist.rows, words))
    return rankings


def playlist_modalities(captioner: CaptionGenerator | str | PathLike[str]) -> dict[str, int]:
    """Returns the feature dimension by modality of a captioner's inputs, without loading presets.

    Raises:
        FileNotFoundError: there is no such preset.
        ValueError: the captioner does not take playlists.
    """
    if isinstance(captioner, str | PathLike):
        encoder = read_config(preset_folder(captioner))["encoder"]
        modalities, kind = encoder.get("modalities"), encoder.get("kind")
    else:
        modalities = getattr(captioner.encoder, "modalities", None)
        kind = " and ".join(captioner.encoder.input_keys)
    if not modalities:
        raise ValueError(
            "Expected a captioner of playlists, such as one trained by effcap train playlists. "
            f"Received: {captioner}, a captioner of {kind}"
        )
    return dict(modalities)


def trained_caption_format(captioner: CaptionGenerator | str | PathLike[str]) -> CaptionFormat:
    """Returns the caption format recorded in a preset; "as-is" if none is."""
    if isinstance(captioner, str | PathLike):
        config = read_record(preset_folder(captioner)).get("config") or {}
        for caption_format in CAPTION_FORMATS:
            if config.get("format") == caption_format:
                return caption_format
    return "as-is"
