"""Tests of batches of packed captions."""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path

import keras
import numpy as np
import pytest

from effcap.tokenizers import Tokenizer
from effcap.trainers import BatchOptions, CaptionBatches, Example, read_csv
from effcap.trainers.batching.buckets import ROUNDING, row_lengths
from effcap.trainers.batching.prefetch import as_dataset
from effcap.trainers.options.batches import batch_options

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("EFFCAP_SHARED", REPOSITORY.parent / "shared"))
FLICKR = SHARED / "flickr8k" / "train.csv"
WORDS = [
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


class IndexLoader:
    """Loads the index of each example, negated if flipped."""

    can_flip = True
    fingerprint = "indices"

    def load(self, indices, flip, draws=None):
        return {"images": np.where(flip, -indices, indices).astype(np.float32)}


class DrawLoader(IndexLoader):
    """Loads the index and the random number of each example."""

    def load(self, indices, flip, draws=None):
        draws = np.zeros(len(indices), np.uint64) if draws is None else draws
        return {"images": np.stack([indices.astype(np.uint64), draws], axis=1)}


def make_examples(count: int = 50, captions: int = 5) -> list[Example]:
    """Makes examples with captions of 4 to 17 words."""
    rng = np.random.default_rng(0)
    return [
        Example(
            Path(f"{i}.jpg"),
            tuple(" ".join(rng.choice(WORDS, rng.integers(4, 18))) for _ in range(captions)),
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([text for p in make_examples() for text in p.captions], 400)


def make(tokenizer, examples=None, max_text_length=64, loader=None, **options) -> CaptionBatches:
    """Makes batches of `examples`; by default those of `make_examples`."""
    examples = make_examples() if examples is None else examples
    loader = loader or IndexLoader()
    return CaptionBatches(examples, loader, tokenizer, max_text_length, BatchOptions(**options))


def contents(batches: CaptionBatches) -> list[tuple]:
    """Returns all arrays of an epoch as lists."""
    return [
        (x["images"].tolist(), x["tokens"].tolist(), x["segments"].tolist(), y.tolist(), w.tolist())
        for x, y, w in (batches[i] for i in range(len(batches)))
    ]


def captions_in(batches: CaptionBatches) -> list[tuple[int, str]]:
    """Decodes (photo, caption) of all real tokens of an epoch and checks their packing."""
    pairs = []
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
                pairs.append((photo, batches.tokenizer.decode(following)))
    return sorted(pairs)


def all_captions(examples) -> list[tuple[int, str]]:
    """Returns (photo, caption) of all captions."""
    return sorted((i, text) for i, example in enumerate(examples) for text in example.captions)


@pytest.mark.parametrize("batch_size", (1, 8, 50, 64))
@pytest.mark.parametrize("shuffle", (True, False))
def test_an_epoch_holds_every_caption_exactly_once(tokenizer, batch_size, shuffle):
    batches = make(tokenizer, batch_size=batch_size, shuffle=shuffle)
    for epoch in (0, 3):
        batches.start_epoch(epoch)
        assert captions_in(batches) == all_captions(make_examples())
        assert len(batches) == -(-50 // batch_size)


def test_an_epoch_of_several_passes_repeats_every_caption(tokenizer):
    examples = make_examples(6)
    batches = make(tokenizer, examples, batch_size=4, passes_per_epoch=10)
    for epoch in (0, 2):
        batches.start_epoch(epoch)
        assert captions_in(batches) == sorted(10 * all_captions(examples))
    assert (len(batches), batches.num_images, batches.num_captions) == (15, 60, 30)
    assert batches.names == [example.name for example in examples]
    assert len(batches.previews(8)) == 6


def test_each_pass_has_its_own_captions_and_flips(tokenizer):
    options = {"batch_size": 1, "captions_per_photo": 1, "passes_per_epoch": 40}
    batches = make(tokenizer, make_examples(2), **options)
    assert set(captions_in(batches)) == set(all_captions(make_examples(2)))
    num_flipped = sum(image == -1 for (image,), *_ in contents(batches))
    assert 5 < num_flipped < 35


def test_a_batch_depends_only_on_seed_epoch_and_index(tokenizer):
    first, second = make(tokenizer, seed=3, batch_size=8), make(tokenizer, seed=3, batch_size=8)
    for _ in range(4):
        first.on_epoch_end()
    second[2]
    second.start_epoch(4)
    assert first.epoch == 4
    assert contents(first) == contents(second)
    backwards = [second[i] for i in reversed(range(len(second)))][::-1]
    assert [x["tokens"].tolist() for x, _, _ in backwards] == [c[1] for c in contents(first)]


def test_epochs_and_seeds_differ(tokenizer):
    batches, other = make(tokenizer, batch_size=8), make(tokenizer, batch_size=8, seed=1)
    before = contents(batches)
    assert before != contents(other)
    batches.start_epoch(1)
    assert before != contents(batches)


def test_without_shuffling_all_epochs_are_equal_and_nothing_is_flipped(tokenizer):
    batches = make(tokenizer, batch_size=8, shuffle=False)
    before = contents(batches)
    batches.on_epoch_end()
    assert contents(batches) == before
    assert all(min(batch[0]) >= 0 for batch in before)


def test_captions_are_chosen_anew_each_epoch(tokenizer):
    batches = make(tokenizer, batch_size=8, captions_per_photo=2)
    used = set()
    for epoch in range(12):
        batches.start_epoch(epoch)
        captions = captions_in(batches)
        assert len(captions) == 2 * 50
        used |= set(captions)
    assert len(used) > 0.97 * len(set(all_captions(make_examples())))


def test_half_is_flipped_except_captions_with_left_or_right(tokenizer):
    examples = [
        Example(example.path, ("A dog on the Left",) if i % 2 else example.captions)
        for i, example in enumerate(make_examples(200, 1))
    ]
    batches = make(tokenizer, examples, batch_size=10)
    images = np.concatenate([batches[i][0]["images"] for i in range(len(batches))]).astype(int)
    flipped = -images[images < 0]
    assert 30 < len(flipped) < 70
    assert all(i % 2 == 0 for i in flipped)


def test_random_numbers_depend_only_on_seed_epoch_and_photo(tokenizer):
    def draws(epoch, **options):
        batches = make(tokenizer, loader=DrawLoader(), **options)
        batches.start_epoch(epoch)
        pairs = np.concatenate([batches[i][0]["images"] for i in range(len(batches))])
        return {int(photo): int(draw) for photo, draw in pairs}

    first = draws(2, batch_size=8, seed=3)
    assert len(set(first.values())) == 50
    others = {"captions_per_photo": 2, "num_threads": 7, "num_buckets": 2}
    assert draws(2, batch_size=5, seed=3, **others) == first
    for other in (draws(3, batch_size=8, seed=3), draws(2, batch_size=8, seed=4)):
        assert not set(other.values()) & set(first.values())
    assert set(draws(2, shuffle=False).values()) == {0}


def test_the_fingerprint_changes_with_everything_batches_depend_on(tokenizer):
    def changed(change) -> str:
        examples = make_examples()
        examples[7] = change(examples[7])
        return make(tokenizer, examples).fingerprint

    first = make(tokenizer)
    second = make(tokenizer, num_threads=7, name="other")
    second.start_epoch(5)
    moved = [Example(Path("/elsewhere") / p.path, p.captions) for p in make_examples()]
    assert first.fingerprint == second.fingerprint == make(tokenizer, moved).fingerprint
    others = [
        make(tokenizer, **{name: value}).fingerprint
        for name, value in {
            "seed": 1, "batch_size": 8, "num_buckets": 3, "shuffle": False, "captions_per_photo": 4,
            "passes_per_epoch": 2,
        }.items()
    ]  # fmt: skip
    others += [
        changed(lambda p: Example(Path("x.jpg"), p.captions)),
        changed(lambda p: Example(p.path, p.captions[1:])),
        changed(lambda p: Example(p.path, (p.captions[0] + " left", *p.captions[1:]))),
        changed(lambda p: Example(p.path, p.captions[::-1])),
        make(tokenizer, make_examples()[::-1]).fingerprint,
        make(Tokenizer.train([make_examples()[0].captions[0]], 300)).fingerprint,
        make(tokenizer, loader=type("", (IndexLoader,), {"fingerprint": "x"})()).fingerprint,
    ]
    assert len({first.fingerprint, *others}) == 1 + len(others)


def test_the_last_batch_is_filled_with_photos_of_weight_zero(tokenizer):
    batches = make(tokenizer, batch_size=16, shuffle=False)
    weights = [batches[i][2] for i in range(len(batches))]
    assert {len(w) for w in weights} == {16}
    assert sum((w.sum(axis=1) > 0).sum() for w in weights) == 50
    total = sum(len(tokenizer.encode(text)) + 1 for _, text in all_captions(make_examples()))
    assert sum(w.sum() for w in weights) == total


def test_processes_make_their_own_rows_of_every_batch(tokenizer):
    together = contents(make(tokenizer, batch_size=8))
    first, second = (
        contents(make(tokenizer, batch_size=8, num_processes=2, process_index=i)) for i in (0, 1)
    )
    for whole, one, other in zip(together, first, second, strict=True):
        assert whole == tuple(a + b for a, b in zip(one, other, strict=True))


def test_captions_that_are_too_long_are_left_out_and_named(tokenizer):
    examples = make_examples(4)
    examples[2] = Example(Path("long.jpg"), ("dog " * 100, "a dog"))
    examples[3] = Example(Path("longer.jpg"), ("cat " * 200,))
    batches = make(tokenizer, examples, batch_size=2)
    assert [problem.where for problem in batches.problems] == ["long.jpg", "longer.jpg"]
    assert "at most 63 tokens" in str(batches.problems[0])
    examples[2:] = [Example(Path("long.jpg"), ("a dog",))]
    assert captions_in(batches) == all_captions(examples)


def test_a_caption_of_the_largest_length_is_kept(tokenizer):
    text = "a dog and two cats"
    length = len(tokenizer.encode(text)) + 1
    examples = [Example(Path("a.jpg"), (text,))]
    assert not make(tokenizer, examples, length).problems
    with pytest.raises(ValueError, match="none that can be used; a.jpg: expected a caption"):
        make(tokenizer, examples, length - 1)


@pytest.mark.parametrize("captions_per_photo", (None, 1, 2))
def test_padding_is_under_15_percent(tokenizer, captions_per_photo):
    options = {"batch_size": 32, "captions_per_photo": captions_per_photo}
    batches = make(tokenizer, make_examples(640), **options)
    for epoch in (0, 1):
        batches.start_epoch(epoch)
        num_positions = sum(y.size for _, y, _ in (batches[i] for i in range(len(batches))))
        num_real = sum(w.sum() for _, _, w in (batches[i] for i in range(len(batches))))
        assert batches.padding == pytest.approx(1 - num_real / num_positions)
        assert batches.padding < 0.15


@pytest.mark.skipif(not FLICKR.is_file(), reason="the Flickr8k captions are absent")
def test_padding_of_flickr8k_is_under_15_percent():
    dataset = read_csv(FLICKR, FLICKR.parent / "images")
    learned = Tokenizer.train(dataset.captions(), 4096)
    for captions_per_photo in (None, 1):
        batches = make(learned, dataset.examples, 128, captions_per_photo=captions_per_photo)
        assert batches.padding < 0.15
        assert len(set(length for length, _ in batches._batches)) <= 10


def test_row_lengths_have_the_least_padding():
    lengths = np.random.default_rng(0).integers(3, 50, 40)
    ends = range(ROUNDING, 53, ROUNDING)

    def num_positions(chosen):
        return sum(min(end for end in chosen if end >= length) for length in lengths)

    for num_buckets in (1, 2, 3):
        longest = -(-lengths.max() // ROUNDING) * ROUNDING
        best = min(
            num_positions((*inner, longest))
            for count in range(num_buckets)
            for inner in combinations([end for end in ends if end < longest], count)
        )
        result = row_lengths(lengths, num_buckets)
        assert len(result) <= num_buckets
        assert num_positions(result) == best


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_buckets": 0}, "num_buckets=0"),
        ({"passes_per_epoch": 0}, "passes_per_epoch=0"),
        ({"captions_per_photo": 0}, "captions_per_photo=0"),
        ({"num_threads": 0}, "num_threads=0"),
        ({"max_bad": 1.5}, "max_bad=1.5"),
        ({"batch_size": 9, "num_processes": 2}, "batch_size=9"),
        ({"num_processes": 2, "process_index": 2}, "process_index=2"),
    ),
)
def test_options_out_of_range_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        batch_options(options)


def test_unknown_options_are_rejected_with_a_list_of_options():
    with pytest.raises(TypeError, match="among name, batch_size, .*Received: batchsize"):
        batch_options({"batchsize": 4})


@pytest.mark.parametrize("epochs", ((0, 1, 2), (7,)))
@pytest.mark.parametrize("captions_per_photo", (None, 1))
def test_fit_receives_the_batches_of_each_epoch_in_order(tokenizer, epochs, captions_per_photo):
    options = {"batch_size": 2, "captions_per_photo": captions_per_photo, "num_threads": 3}
    batches, expected = (make(tokenizer, make_examples(23), **options) for _ in range(2))
    received = []

    class Recorder(keras.Model):
        def train_step(self, data):
            inputs, targets, _ = data
            received.append((inputs["images"].numpy().tolist(), targets.numpy().tolist()))
            return {"loss": 0.0}

        def call(self, inputs):
            return inputs

    recorder = Recorder()
    recorder.compile("sgd", run_eagerly=True)
    wanted = []
    for epoch in epochs:
        batches.start_epoch(epoch)
        recorder.fit(as_dataset(batches), verbose=0)
        expected.start_epoch(epoch)
        wanted += [(c[0], c[3]) for c in contents(expected)]
    assert received == wanted
