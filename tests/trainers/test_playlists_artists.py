"""Ranking of artists, their fractions of tracks, and masking of their names in captions."""

from __future__ import annotations

import random

import numpy as np
import pytest

from effcap.trainers.data.playlists import (
    artist_fractions,
    mask_artists,
    rank_artists,
    unmask_artists,
)


def test_artists_are_ranked_by_frequency_then_first_appearance():
    names = ["ABBA", "Queen", "Blur", "Queen", "Blur", "Cher"]
    assert list(rank_artists(names)) == ["Queen", "Blur", "ABBA", "Cher"]
    pairs = [("Cher", 1), ("Queen", 2), ("ABBA", 2)]
    assert list(rank_artists(pairs)) == ["Queen", "ABBA", "Cher"]


def test_spellings_that_differ_in_case_or_spaces_are_one_artist():
    assert rank_artists([" The  Who ", "the who", "", "  "]) == {"The Who": 2}


def test_fractions_are_descending_and_limited_to_ten_artists():
    fractions = artist_fractions({"a": 1, "b": 3})
    assert fractions.shape == (1, 10) and fractions.dtype == np.float32
    np.testing.assert_allclose(fractions[0], [0.75, 0.25, *[0] * 8])
    twelve = artist_fractions({str(i): i for i in range(1, 13)})
    np.testing.assert_allclose(twelve[0], np.arange(12, 2, -1) / 78, rtol=1e-6)


@pytest.mark.parametrize(
    ("caption", "artists", "masked"),
    (
        ("The best of Queen", ["Queen"], "The best of artist0"),
        ("QUEEN, queen's hits", ["Queen"], "artist0, artist0's hits"),
        ("Queens of disco", ["Queen"], "Queens of disco"),
        ("Prince Royce and Prince", ["Prince", "Prince Royce"], "artist1 and artist0"),
        ("AC/DC (live)", ["AC/DC"], "artist0 (live)"),
        ("Wham! forever, P!nk", ["P!nk", "Wham!"], "artist1 forever, artist0"),
        ("a.b", ["a", "b"], "artist0.artist1"),
        ("songs of 10 artists", ["1"] * 11, "songs of 10 artists"),
        ("Beyoncé is not Beyonc", ["BEYONCÉ"], "artist0 is not Beyonc"),
        ("no name", [], "no name"),
    ),
)
def test_whole_names_are_masked_in_any_case_longest_first(caption, artists, masked):
    assert mask_artists(caption, artists) == masked


def test_a_longer_name_wins_over_a_shorter_one_that_starts_earlier():
    assert mask_artists("A B C D", ["A B", "B C D"]) == "A artist1"


def test_two_digit_placeholders_are_not_confused_with_one_digit_ones():
    names = [f"Band {chr(65 + i)}" for i in range(11)]
    masked = mask_artists("Band K and Band B", names)
    assert masked == "artist10 and artist1"
    assert unmask_artists(masked, names) == "Band K and Band B"


def test_an_artist_named_like_a_placeholder_is_masked():
    names = ["Foo Barbaz", "artist0", "ARTIST7"]
    caption = "Foo Barbaz, artist0 and ARTIST7"
    assert mask_artists(caption, names) == "artist0, artist1 and artist2"
    assert unmask_artists(mask_artists(caption, names), names) == caption


@pytest.mark.parametrize("caption", ("my artist0", "of Artist12!", "Queen, artist1"))
def test_a_caption_with_a_placeholder_is_rejected(caption):
    with pytest.raises(ValueError, match="Expected a caption without '(a|A)rtist"):
        mask_artists(caption, ["Queen"])


def test_placeholders_beyond_the_artists_are_kept():
    assert unmask_artists("artist0, artist1, artist00, artists0", ["Queen"]) == (
        "Queen, artist1, artist00, artists0"
    )


def test_capitalized_placeholders_are_unmasked():
    assert unmask_artists("Artist0's best", ["Queen"]) == "Queen's best"


def test_unmasking_inverts_masking():
    rng = random.Random(0)
    pieces = ["a", "b", "!", "!!!", "0", "artist", "é", ".", "ab", "1"]
    tried = 0
    for _ in range(3000):
        names = list(
            rank_artists(
                rng.choice(["", " "]).join(rng.choices(pieces, k=rng.randint(1, 3)))
                for _ in range(rng.randint(0, 5))
            )
        )
        caption = rng.choice(["", " "]).join(
            rng.choice([*pieces, *names, " "]) for _ in range(rng.randint(1, 8))
        )
        try:
            masked = mask_artists(caption, names)
        except ValueError:
            continue
        assert unmask_artists(masked, names) == caption, (names, masked)
        assert unmask_artists(mask_artists(caption.upper(), names), names).lower() == caption
        tried += masked != caption
    assert tried > 1000
