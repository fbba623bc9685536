"""Batches hold every caption once, with little padding, and depend on seed, epoch and index."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from effcap.tokenizers.tokenizer import Tokenizer
from effcap.trainers import CaptionBatches, CaptionedPhoto, read_csv
from effcap.trainers.batching.buckets import ROUNDING, row_lengths

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("EFFCAP_SHARED", REPOSITORY.parent / "shared"))
FLICKR = SHARED / "flickr8k" / "train.csv"


class Numbers:
    """A source whose input of a photo is its number, negative where mirrored."""

    mirrored = True
    fingerprint = "numbers"

    def load(self, photos, mirror, draws=None):
        return {"images": np.where(mirror, -photos, photos).astype(np.float32)}


class Draws(Numbers):
    """A source whose input of a photo is its number and the random number drawn for it."""

    def load(self, photos, mirror, draws=None):
        draws = np.zeros(len(photos), np.uint64) if draws is None else draws
        return {"images": np.stack([photos.astype(np.uint64), draws], axis=1)}


def made_photos(count: int = 50, captions: int = 5) -> list[CaptionedPhoto]:
    rng = np.random.default_rng(0)
    words = [
        "a",
        "dog",
        "and",
        "two",
        "cats",
        "run",
        "in",
        "the",
        "green",
        "park",
        "near",
        "some",
        "water",
    ]
    return [
        CaptionedPhoto(
            Path(f"{i}.jpg"),
            tuple(" ".join(rng.choice(words, rng.integers(4, 18))) for _ in range(captions)),
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([text for p in made_photos() for text in p.captions], 400)


def make(tokenizer, photos=None, positions=64, **options) -> CaptionBatches:
    photos = made_photos() if photos is None else photos
    return CaptionBatches(photos, Numbers(), tokenizer, positions, **options)


def contents(batches: CaptionBatches) -> list[tuple]:
    return [
        (x["images"].tolist(), x["tokens"].tolist(), x["segments"].tolist(), y.tolist(), w.tolist())
        for x, y, w in (batches[i] for i in range(len(batches)))
    ]


def captions_in(batches: CaptionBatches) -> list[tuple[int, str]]:
    """(photo, caption) of all real tokens, read back from tokens, targets, segments, weights."""
    found = []
    for inputs, targets, weights in (batches[i] for i in range(len(batches))):
        for row in range(len(targets)):
            segments = inputs["segments"][row]
            for segment in range(1, segments.max() + 1):
                places = np.flatnonzero((segments == segment) & (weights[row] > 0))
                if not len(places):
                    continue
                assert np.array_equal(places, np.arange(places[0], places[-1] + 1))
                assert inputs["tokens"][row, places[0]] == batches.tokenizer.bos_id
                assert targets[row, places[-1]] == batches.tokenizer.eos_id
                following = targets[row, places[:-1]]
                assert np.array_equal(following, inputs["tokens"][row, places[1:]])
                photo = int(abs(inputs["images"][row]))
                found.append((photo, batches.tokenizer.decode(following)))
    return sorted(found)


def all_captions(photos) -> list[tuple[int, str]]:
    return sorted((i, text) for i, photo in enumerate(photos) for text in photo.captions)


@pytest.mark.parametrize("batch_size", (1, 8, 50, 64))
@pytest.mark.parametrize("shuffle", (True, False))
def test_an_epoch_holds_every_caption_exactly_once(tokenizer, batch_size, shuffle):
    batches = make(tokenizer, batch_size=batch_size, shuffle=shuffle)
    for epoch in (0, 3):
        batches.start_epoch(epoch)
        assert captions_in(batches) == all_captions(made_photos())
        assert len(batches) == -(-50 // batch_size)


def test_an_epoch_of_several_passes_holds_every_caption_as_often(tokenizer):
    photos = made_photos(6)
    batches = make(tokenizer, photos, batch_size=4, passes=10)
    for epoch in (0, 2):
        batches.start_epoch(epoch)
        assert captions_in(batches) == sorted(10 * all_captions(photos))
    assert (len(batches), batches.images, batches.captions_left) == (15, 60, 30)
    assert batches.names == [photo.name for photo in photos]
    assert len(batches.samples(8)) == 6


def test_each_pass_chooses_captions_and_views_of_its_own(tokenizer):
    batches = make(tokenizer, made_photos(2), batch_size=1, captions_per_photo=1, passes=40)
    assert set(captions_in(batches)) == set(all_captions(made_photos(2)))
    mirrored = sum(image == -1 for (image,), *_ in contents(batches))
    assert 5 < mirrored < 35


def test_a_batch_depends_on_seed_epoch_and_index_alone(tokenizer):
    first, second = make(tokenizer, seed=3, batch_size=8), make(tokenizer, seed=3, batch_size=8)
    for _ in range(4):
        first.on_epoch_end()
    second[2]
    second.start_epoch(4)
    assert first.epoch == 4
    assert contents(first) == contents(second)
    later = [second[i] for i in reversed(range(len(second)))][::-1]
    assert [x["tokens"].tolist() for x, _, _ in later] == [c[1] for c in contents(first)]


def test_epochs_and_seeds_differ(tokenizer):
    batches, other = make(tokenizer, batch_size=8), make(tokenizer, batch_size=8, seed=1)
    before = contents(batches)
    assert before != contents(other)
    batches.start_epoch(1)
    assert before != contents(batches)


def test_without_shuffling_all_epochs_are_the_same_and_nothing_is_mirrored(tokenizer):
    batches = make(tokenizer, batch_size=8, shuffle=False)
    before = contents(batches)
    batches.on_epoch_end()
    assert contents(batches) == before
    assert all(min(batch[0]) >= 0 for batch in before)


def test_captions_are_chosen_anew_each_epoch_and_all_get_their_turn(tokenizer):
    batches = make(tokenizer, batch_size=8, captions_per_photo=2)
    seen = set()
    for epoch in range(12):
        batches.start_epoch(epoch)
        captions = captions_in(batches)
        assert len(captions) == 2 * 50
        seen |= set(captions)
    assert len(seen) > 0.97 * len(set(all_captions(made_photos())))


def test_about_half_is_mirrored_but_no_photo_whose_captions_speak_of_left_or_right(tokenizer):
    photos = made_photos(200, 1)
    photos = [
        CaptionedPhoto(p.path, ("A dog on the Left",) if i % 2 else p.captions)
        for i, p in enumerate(photos)
    ]
    batches = make(tokenizer, photos, batch_size=10)
    images = np.concatenate([batches[i][0]["images"] for i in range(len(batches))]).astype(int)
    mirrored = -images[images < 0]
    assert 30 < len(mirrored) < 70
    assert all(i % 2 == 0 for i in mirrored)


def drawn(batches: CaptionBatches) -> dict[int, int]:
    """What was drawn for each photo."""
    pairs = np.concatenate([batches[i][0]["images"] for i in range(len(batches))])
    return {int(photo): int(draw) for photo, draw in pairs}


def test_what_is_drawn_for_a_photo_depends_on_seed_epoch_and_photo_alone(tokenizer):
    def draws(epoch, **options):
        batches = CaptionBatches(made_photos(), Draws(), tokenizer, 64, **options)
        batches.start_epoch(epoch)
        return drawn(batches)

    first = draws(2, batch_size=8, seed=3)
    assert len(set(first.values())) == 50
    assert draws(2, batch_size=5, seed=3, captions_per_photo=2, threads=7, buckets=2) == first
    for other in (draws(3, batch_size=8, seed=3), draws(2, batch_size=8, seed=4)):
        assert not set(other.values()) & set(first.values())
    assert set(draws(2, shuffle=False).values()) == {0}


def test_the_fingerprint_changes_with_all_that_the_batches_depend_on_and_nothing_else(tokenizer):
    def changed(change) -> str:
        photos = made_photos()
        photos[7] = change(photos[7])
        return make(tokenizer, photos).fingerprint

    first = make(tokenizer)
    second = make(tokenizer, threads=7)
    second.start_epoch(5)
    moved = [CaptionedPhoto(Path("/elsewhere") / p.path, p.captions) for p in made_photos()]
    assert first.fingerprint == second.fingerprint == make(tokenizer, moved).fingerprint
    others = [
        make(tokenizer, **{name: value}).fingerprint
        for name, value in {
            "seed": 1, "batch_size": 8, "buckets": 3, "shuffle": False, "captions_per_photo": 4,
            "passes": 2,
        }.items()
    ]  # fmt: skip
    others += [
        changed(lambda p: CaptionedPhoto(Path("x.jpg"), p.captions)),
        changed(lambda p: CaptionedPhoto(p.path, p.captions[1:])),
        changed(lambda p: CaptionedPhoto(p.path, (p.captions[0] + " left", *p.captions[1:]))),
        changed(lambda p: CaptionedPhoto(p.path, p.captions[::-1])),
        make(tokenizer, made_photos()[::-1]).fingerprint,
        make(Tokenizer.train([made_photos()[0].captions[0]], 300)).fingerprint,
        CaptionBatches(made_photos(), type("", (Numbers,), {"fingerprint": "x"})(), tokenizer, 64)
        .fingerprint,
    ]  # fmt: skip
    assert len({first.fingerprint, *others}) == 1 + len(others)


def test_the_last_batch_is_filled_with_photos_of_no_weight(tokenizer):
    batches = make(tokenizer, batch_size=16, shuffle=False)
    weights = [batches[i][2] for i in range(len(batches))]
    assert {len(w) for w in weights} == {16}
    assert sum((w.sum(axis=1) > 0).sum() for w in weights) == 50
    total = sum(len(tokenizer.encode(text)) + 1 for _, text in all_captions(made_photos()))
    assert sum(w.sum() for w in weights) == total


def test_a_caption_that_is_too_long_is_left_out_and_named(tokenizer):
    photos = made_photos(4)
    photos[2] = CaptionedPhoto(Path("long.jpg"), ("dog " * 100, "a dog"))
    photos[3] = CaptionedPhoto(Path("longer.jpg"), ("cat " * 200,))
    batches = make(tokenizer, photos, batch_size=2)
    assert [problem.where for problem in batches.problems] == ["long.jpg", "longer.jpg"]
    assert "at most 63 tokens" in str(batches.problems[0])
    photos[2:] = [CaptionedPhoto(Path("long.jpg"), ("a dog",))]
    assert captions_in(batches) == all_captions(photos)


def test_a_caption_of_as_many_tokens_as_fit_is_kept(tokenizer):
    text = "a dog and two cats"
    positions = len(tokenizer.encode(text)) + 1
    photo = [CaptionedPhoto(Path("a.jpg"), (text,))]
    assert not make(tokenizer, photo, positions).problems
    with pytest.raises(ValueError, match="none that can be used; a.jpg: expected a caption"):
        make(tokenizer, photo, positions - 1)


@pytest.mark.parametrize("captions_per_photo", (None, 1, 2))
def test_padding_is_under_15_percent(tokenizer, captions_per_photo):
    photos = made_photos(640)
    batches = make(tokenizer, photos, batch_size=32, captions_per_photo=captions_per_photo)
    for epoch in (0, 1):
        batches.start_epoch(epoch)
        places = sum(y.size for _, y, _ in (batches[i] for i in range(len(batches))))
        real = sum(w.sum() for _, _, w in (batches[i] for i in range(len(batches))))
        assert batches.padding == pytest.approx(1 - real / places)
        assert batches.padding < 0.15


@pytest.mark.skipif(not FLICKR.is_file(), reason="the Flickr8k captions are not here")
@pytest.mark.parametrize("captions_per_photo", (None, 1))
def test_padding_of_flickr8k_is_under_15_percent(captions_per_photo):
    photos, _ = read_csv(FLICKR, FLICKR.parent / "images")
    learned = Tokenizer.train([text for p in photos for text in p.captions], 4096)
    batches = make(learned, photos, positions=128, captions_per_photo=captions_per_photo)
    assert batches.padding < 0.15
    assert len(set(length for length, _ in batches._batches)) <= 10


def test_row_lengths_are_the_best_there_are():
    from itertools import combinations

    lengths = np.random.default_rng(0).integers(3, 50, 40)
    ends = range(ROUNDING, 53, ROUNDING)

    def places(chosen):
        return sum(min(end for end in chosen if end >= length) for length in lengths)

    for buckets in (1, 2, 3):
        longest = -(-lengths.max() // ROUNDING) * ROUNDING
        best = min(
            places((*inner, longest))
            for count in range(buckets)
            for inner in combinations([end for end in ends if end < longest], count)
        )
        found = row_lengths(lengths, buckets)
        assert len(found) <= buckets
        assert places(found) == best


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"batch_size": 0}, "batch_size=0"),
        ({"buckets": 0}, "buckets=0"),
        ({"passes": 0}, "passes=0"),
        ({"captions_per_photo": 0}, "captions_per_photo=0"),
    ),
)
def test_options_out_of_range_are_refused(tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        make(tokenizer, **options)


@pytest.mark.parametrize("epochs", ((0, 1, 2), (7,)))
@pytest.mark.parametrize("captions_per_photo", (None, 1))
def test_fit_sees_the_batches_of_each_epoch_in_order(tokenizer, epochs, captions_per_photo):
    from effcap.trainers.batching.prefetch import feed

    options = {"batch_size": 2, "captions_per_photo": captions_per_photo, "threads": 3}
    batches, expected = (make(tokenizer, made_photos(23), **options) for _ in range(2))
    seen = []

    class Spy(keras.Model):
        def train_step(self, data):
            inputs, targets, weights = data
            seen.append((inputs["images"].numpy().tolist(), targets.numpy().tolist()))
            return {"loss": 0.0}

        def call(self, inputs):
            return inputs

    spy = Spy()
    spy.compile("sgd", run_eagerly=True)
    wanted = []
    for epoch in epochs:
        batches.start_epoch(epoch)
        spy.fit(feed(batches), verbose=0)
        expected.start_epoch(epoch)
        wanted += [(c[0], c[3]) for c in contents(expected)]
    assert seen == wanted
