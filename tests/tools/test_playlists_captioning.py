"""Captions, attention, features and scores of playlists as library calls."""

from __future__ import annotations

import numpy as np
import pytest

from effcap.caption import Caption
from effcap.captioner import Captioner
from effcap.samplers import Greedy
from effcap.tokenizers import Tokenizer
from effcap.tools.captioning.playlist_attention import (
    RowAttention,
    attention_lines,
    mean_attention,
    rank_rows,
    token_words,
)
from effcap.tools.captioning.playlists import caption_playlists
from effcap.tools.evaluation.playlists import PlaylistReferences, evaluate_playlists
from effcap.tools.features.playlists import FeatureSources, compute_playlist_features
from effcap.trainers.data.playlists import Playlist, Track, read_playlists
from helpers.captioners import randomize
from helpers.playlist_maker import write_playlists
from helpers.playlists import MADE, MODALITIES, hparams

QUEEN = Playlist("q", (Track("1", "ABBA"), Track("2", "Queen", ("Rock",)), Track("3", "Queen")))
ABBA = Playlist("a", (Track("1", "ABBA"),))
UNKNOWN = Playlist("u", (Track("1"),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("playlists")
    write_playlists(folder, {"train": MADE[:3], "test": MADE[3:6]})
    return folder


@pytest.fixture(scope="module")
def captioner():
    tokenizer = Tokenizer.train([text for made in MADE for text in made.captions], 300)
    return randomize(Captioner.from_hparams(hparams(), tokenizer))


@pytest.fixture
def write(captioner, monkeypatch):
    """Returns a function that sets the text the captioner generates for every playlist."""

    def set_text(text):
        def generate_batch(inputs, sampler, batch_size, indices):
            return [[Caption(text, -1.0, ())] for _ in inputs["tags"]]

        monkeypatch.setattr(captioner, "generate_batch", generate_batch)

    return set_text


@pytest.mark.parametrize(
    ("caption_format", "generated", "text", "title", "description"),
    (
        ("as-is", "for artist1", "for ABBA", "", ""),
        ("title", "best of artist0", "<title> best of Queen", "best of Queen", ""),
        ("both", "artist0 <delimiter> slow", "<title> Queen <description> slow", "Queen", "slow"),
        ("description", "artist7", "<description> artist7", "", "artist7"),
    ),
)
def test_captions_have_artist_names_and_the_format_of_the_data(
    captioner, write, caption_format, generated, text, title, description
):
    write(generated)
    captioned = caption_playlists(
        [QUEEN, UNKNOWN, ABBA], captioner, caption_format=caption_format, batch_size=1
    )
    first, second = captioned.captions
    assert (first.id, first.text, first.score) == ("q", text, -1.0)
    assert (first.title, first.description, first.attention) == (title, description, {})
    assert second.id == "a"
    assert captioned.skipped == [("u", "no features of any modality")]
    present = {name: value for name, value in (("title", title), ("description", description))}
    expected = {"id": "q", "caption": text, "score": -1.0} | {k: v for k, v in present.items() if v}
    assert first.to_json() == expected


def test_words_of_artist_names_count_in_the_final_caption(captioner, write):
    write("artist0 and artist1 <delimiter> slow")
    sampler = Greedy(include=["queen", "fast|slow", "title", "rock"], exclude=["Abba", "artist0"])
    captioned = caption_playlists([QUEEN], captioner, sampler, caption_format="both")
    (caption,) = captioned.captions
    assert caption.text == "<title> Queen and ABBA <description> slow"
    assert caption.missing == ("title", "rock") and caption.excluded == ("Abba",)
    entry = caption.to_json()
    assert (entry["missing"], entry["excluded"]) == (["title", "rock"], ["Abba"])


def test_a_captioner_has_words_of_its_own(captioner, write, monkeypatch):
    write("best of artist0")
    monkeypatch.setattr(captioner, "sampler", Greedy(include=["rock"], exclude=["Queen"]))
    for sampler, words in ((None, (("rock",), ("Queen",))), ("greedy", ((), ()))):
        (caption,) = caption_playlists([QUEEN], captioner, sampler).captions
        assert (caption.missing, caption.excluded) == words


def test_a_part_of_a_character_has_the_text_of_the_whole(tokenizer):
    words = token_words(tokenizer, tokenizer.encode("a Ä dog"))
    assert len(words) > 4 and words[0] == "a" and words[-1] == "(end)"
    assert words.count("Ä") > 1 and not any("\ufffd" in word for word in words)


def test_a_playlist_has_the_same_caption_alone_and_in_a_batch(captioner, folder):
    sources, sampler = FeatureSources(features=folder / "embeddings"), Greedy(max_new_tokens=8)
    playlists = read_playlists(folder / "playlists.json")[:3]
    together = caption_playlists(playlists, captioner, sampler, sources=sources, batch_size=2)
    assert [caption.id for caption in together.captions] == [made.id for made in MADE[:3]]
    for playlist, expected in zip(playlists[:2], together.captions, strict=False):
        (alone,) = caption_playlists([playlist], captioner, sampler, sources=sources).captions
        assert alone.text == expected.text
        assert alone.score == pytest.approx(expected.score, abs=1e-4)


def test_attention_covers_every_row_and_no_padding(captioner, folder):
    sources, sampler = FeatureSources(features=folder / "embeddings"), Greedy(max_new_tokens=6)
    playlists = read_playlists(folder / "playlists.json")[:3]
    featurized = compute_playlist_features(playlists, MODALITIES, sources)
    captioned = caption_playlists(playlists, captioner, sampler, sources=sources, attention=True)
    for caption, features in zip(captioned.captions, featurized.features, strict=True):
        assert list(caption.attention) == list(MODALITIES)
        for modality, rows in caption.attention.items():
            assert sorted(row.row for row in rows) == sorted(features.rows[modality])
            weights = [row.weight for row in rows]
            assert weights == sorted(weights, reverse=True)
            assert sum(weights) == pytest.approx(1, abs=1e-2)
            assert all(row.word for row in rows)


def test_modalities_without_features_get_no_attention(captioner):
    sampler = Greedy(max_new_tokens=4)
    captioned = caption_playlists([QUEEN], captioner, sampler, attention=True)
    (caption,) = captioned.captions
    assert caption.attention["audio"] == [] and caption.attention["artist"]
    assert captioned.notes == [
        "without audio features: 3 tracks",
        "  playlist q: 1 (ABBA): there is no file 1",
        "  playlist q: 2 (Queen): there is no file 2",
        "  playlist q: 3 (Queen): there is no file 3",
        "without audio: 1 of 1 playlists",
        "without tags: 1 of 1 playlists (tag embeddings are required)",
    ]


def test_playlists_are_scored_with_artist_names(captioner, write, folder):
    write("<title> Artist0 <delimiter> slow")
    references = PlaylistReferences(
        captions=folder / "captions.json",
        features=folder / "embeddings",
        artists=folder / "artists.json",
        caption_format="both",
    )
    evaluation = evaluate_playlists(captioner, references, batch_size=2)
    captions = evaluation.captions
    assert [photo.name for photo in captions.photos] == [made.id for made in MADE[3:6]]
    assert captions.captions == [[f"{next(iter(made.artists))} slow"] for made in MADE[3:6]]
    assert captions.photos[0].captions[0].startswith(MADE[3].title)
    assert not any("<" in text for photo in captions.photos for text in photo.captions)
    assert evaluation.counts["references"] == 6 and "CIDEr" in evaluation.scores.corpus


def test_a_captioner_of_photos_is_rejected():
    with pytest.raises(ValueError, match="Expected a captioner of playlists.*a captioner of image"):
        caption_playlists([QUEEN], "flickr8k-lite0")


def test_attention_is_averaged_over_layers_and_heads():
    rng = np.random.default_rng(0)
    shapes = ((2, 3, 5, 4), (2, 3, 5, 2))  # (B, H, T, S) of two memories
    layers = [[rng.random(shape) for shape in shapes] for _ in range(2)]
    audio, tags = mean_attention(layers, 1, 4)
    assert audio.shape == (4, 4) and tags.shape == (4, 2)
    expected = np.mean([layer[0][1, :, 2, 3].mean() for layer in layers])
    np.testing.assert_allclose(audio[2, 3], expected)


def test_rows_are_ranked_by_attention_with_their_strongest_word():
    weights = {
        "audio": np.array([[0.2, 0.5, 0.3, 0.0], [0.1, 0.9, 0.0, 0.0]]),
        "tags": np.array([[0.0], [0.0]]),
    }
    rows = {"audio": ["a.wav", "b.wav", "c.wav"], "tags": []}
    ranked = rank_rows(weights, rows, [" slow", " rock"])
    assert ranked["audio"][0] == RowAttention("b.wav", 0.7, "rock")
    assert [row.row for row in ranked["audio"]] == ["b.wav", "a.wav", "c.wav"]
    assert attention_lines(ranked, max_rows=2) == [
        "audio:",
        "   70.0%  b.wav, at 'rock'",
        "   15.0%  a.wav, at 'slow'",
        "   15.0%  1 others",
        "tags: no features",
    ]
