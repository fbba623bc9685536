"""Playlists into captions: what is written, what was looked at."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.captioners import randomize
from helpers.playlist_maker import features
from helpers.playlists import MADE, MODALITIES, hparams

from effcap.caption import Caption
from effcap.captioner import Captioner
from effcap.samplers import Greedy
from effcap.tokenizers.tokenizer import Tokenizer
from effcap.tools.captioning.playlists import caption_playlists
from effcap.trainers.data.playlists import (
    Playlist,
    PlaylistFeatures,
    TagEmbeddings,
    Track,
    features_of,
)

TAGS = TagEmbeddings(["folk", "rock"], np.eye(2, 300))
QUEEN = Playlist("q", (Track("1", "ABBA"), Track("2", "Queen", ("Rock",)), Track("3", "Queen")))
UNKNOWN = Playlist("u", (Track("1"),))


class Parrot:
    """Writes the same of everything."""

    def __init__(self, text: str):
        self.text = text

    def generate_batch(self, inputs, sampler, batch_size):
        return [[Caption(self.text, -1.0, ())] for _ in inputs["tags"]]


def found(playlist: Playlist) -> tuple[Playlist, PlaylistFeatures]:
    return playlist, features_of(playlist, {"tags": 300, "artist": 10}, tags=TAGS)


@pytest.mark.parametrize(
    ("form", "written", "text", "title", "description"),
    (
        ("as-is", "for artist1", "for ABBA", "", ""),
        ("title", "best of artist0", "<title> best of Queen", "best of Queen", ""),
        ("both", "artist0 <delimiter> slow", "<title> Queen <description> slow", "Queen", "slow"),
        ("description", "artist7", "<description> artist7", "", "artist7"),
    ),
)
def test_captions_come_back_with_names_and_in_the_form_of_the_data(
    form, written, text, title, description
):
    first, second = caption_playlists(
        Parrot(written), [found(QUEEN), found(UNKNOWN)], form=form, batch_size=1
    )
    assert (first.id, first.text, first.score) == ("q", text, -1.0)
    assert (first.title, first.description, first.attention) == (title, description, {})
    assert second.id == "u"


@pytest.fixture(scope="module")
def captioner():
    tokenizer = Tokenizer.train([text for made in MADE for text in made.captions], 300)
    return randomize(Captioner.from_hparams(hparams(), tokenizer))


@pytest.fixture(scope="module")
def playlists():
    tags = TagEmbeddings(["folk"], np.eye(1, 300))
    items = []
    for made in MADE[:3]:
        tracks = tuple(Track(t["id"], t["artist"], tuple(t["tags"])) for t in made.tracks)
        arrays = features(made, tags)
        rows = {name: [f"{name} {i}" for i in range(len(a))] for name, a in arrays.items()}
        items.append((Playlist(made.id, tracks), PlaylistFeatures(arrays, rows)))
    return items


def test_a_playlist_has_the_same_caption_alone_as_among_others(captioner, playlists):
    sampler = Greedy(max_tokens=8)
    together = list(caption_playlists(captioner, playlists, sampler, batch_size=2))
    assert [caption.id for caption in together] == [made.id for made in MADE[:3]]
    for item, expected in zip(playlists[:2], together, strict=False):
        (alone,) = caption_playlists(captioner, [item], sampler)
        assert alone.text == expected.text
        assert alone.score == pytest.approx(expected.score, abs=1e-4)


def test_attention_is_told_of_every_row_and_of_no_padding(captioner, playlists):
    captions = caption_playlists(captioner, playlists, Greedy(max_tokens=6), attention=True)
    for caption, (_, items) in zip(captions, playlists, strict=True):
        assert list(caption.attention) == list(MODALITIES)
        for modality, rows in caption.attention.items():
            assert sorted(row["row"] for row in rows) == sorted(items.rows[modality])
            shares = [row["share"] for row in rows]
            assert shares == sorted(shares, reverse=True)
            if rows:
                assert sum(shares) == pytest.approx(1, abs=1e-2)
            assert all(isinstance(row["word"], str) and row["word"] for row in rows)


def test_a_modality_without_rows_is_looked_at_nowhere(captioner, playlists):
    playlist, items = playlists[0]
    arrays = {**items.arrays, "audio": np.zeros((0, 256), np.float32)}
    without = PlaylistFeatures(arrays, {**items.rows, "audio": []})
    (caption,) = caption_playlists(
        captioner, [(playlist, without)], Greedy(max_tokens=4), attention=True
    )
    assert caption.attention["audio"] == [] and caption.attention["artist"]
