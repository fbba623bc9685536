"""Batches from shards hold every photo once, in an order that any process finds from any place."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
from helpers.data_maker import make_captioner
from helpers.shard_maker import (
    make_captions,
    make_jpeg,
    shade,
    write_index,
    write_shard,
    write_shards,
)

from effcap.tokenizers.tokenizer import Tokenizer
from effcap.trainers import RunOptions, TooManyProblems, read_shards, shard_dataset
from effcap.trainers.data.augmentation import Augmentation

COUNTS = (9, 14, 7)
TOTAL = sum(COUNTS)


@pytest.fixture(scope="module")
def captioner():
    return make_captioner([text for i in range(51) for text in make_captions(i)])


@pytest.fixture
def shards(tmp_path):
    return write_shards(tmp_path / "shards", COUNTS)


def make(shards, captioner, **options):
    options = {"batch_size": 4, "decoder": "pillow", "block": 8, **options}
    return shard_dataset(shards, captioner, **options)


def contents(batches, epoch: int | None = None) -> list[tuple]:
    if epoch is not None:
        batches.start_epoch(epoch)
    return [
        (x["images"].tolist(), x["tokens"].tolist(), x["segments"].tolist(), y.tolist(), w.tolist())
        for x, y, w in (batches[i] for i in range(len(batches)))
    ]


def photos_in(batches) -> list[int]:
    """Numbers of the photos with any weight, by their grey values."""
    found = []
    for i in range(len(batches)):
        inputs, _, weights = batches[i]
        for image, weight in zip(inputs["images"], weights, strict=True):
            if weight.any():
                found.append(round(float(image.mean()) / shade(1)))
    return found


def texts_in(batches) -> list[tuple[int, str]]:
    """(photo, caption) of all captions in an epoch."""
    found = []
    for i in range(len(batches)):
        inputs, targets, weights = batches[i]
        for row, image in enumerate(inputs["images"]):
            photo = round(float(image.mean()) / shade(1))
            for segment in range(1, inputs["segments"][row].max() + 1):
                here = (inputs["segments"][row] == segment) & (weights[row] > 0)
                tokens = targets[row][here]
                if len(tokens):
                    assert tokens[-1] == batches.tokenizer.eos_id
                    found.append((photo, batches.tokenizer.decode(tokens[:-1])))
    return found


def test_every_caption_is_seen_once_an_epoch_beside_its_photo(shards, captioner):
    batches = make(shards, captioner)
    expected = sorted((i, text) for i in range(TOTAL) for text in make_captions(i))
    for epoch in range(2):
        batches.start_epoch(epoch)
        assert sorted(texts_in(batches)) == expected
    assert batches.captions_left == len(expected) and batches.images == TOTAL
    assert len(batches) == -(-TOTAL // 4)


def test_any_batch_is_the_same_whoever_asks_first_and_in_whatever_order(shards, captioner):
    whole = contents(make(shards, captioner, mirror=True, crop=0.5, colour=0.3), 3)
    again = make(shards, captioner, mirror=True, crop=0.5, colour=0.3)
    again.start_epoch(3)
    for number in (5, 0, 7, 2, 5):
        inputs, targets, _ = again[number]
        assert inputs["images"].tolist() == whole[number][0]
        assert targets.tolist() == whole[number][3]


def test_epochs_differ_and_seeds_differ(shards, captioner):
    batches = make(shards, captioner)
    first, second = photos_in(batches), None
    batches.start_epoch(1)
    second = photos_in(batches)
    assert first != second
    assert photos_in(make(shards, captioner, seed=1)) != first


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_make_their_own_rows_of_the_joint_batches(shards, captioner, parts):
    joint = make(shards, captioner, parts=parts, mirror=True, crop=0.5)
    alone = [
        make(shards, captioner, parts=parts, part=part, mirror=True, crop=0.5)
        for part in range(parts)
    ]
    assert len({len(batches) for batches in (joint, *alone)}) == 1
    for epoch, number in itertools.product(range(2), range(len(joint))):
        for batches in (joint, *alone):
            batches.start_epoch(epoch)
        wanted = joint[number]
        found = [batches[number] for batches in alone]
        for name in ("images", "tokens", "segments"):
            rows = np.concatenate([inputs[name] for inputs, _, _ in found])
            np.testing.assert_array_equal(rows, wanted[0][name])
        for place in (1, 2):
            rows = np.concatenate([batch[place] for batch in found])
            np.testing.assert_array_equal(rows, wanted[place])


def test_parts_read_different_photos(shards, captioner):
    parts = [photos_in(make(shards, captioner, parts=2, part=part)) for part in range(2)]
    assert sorted(parts[0] + parts[1]) == list(range(TOTAL))
    assert not set(parts[0]) & set(parts[1])


def test_rows_of_similar_length_share_a_batch(tmp_path, captioner):
    shards = write_shards(tmp_path, (25, 25))
    sorted_, unsorted = (make(shards, captioner, block=block).padding for block in (50, 4))
    assert sorted_ < unsorted


def test_the_last_batch_is_as_large_as_the_others_and_fills_up_with_what_weighs_nothing(
    shards, captioner
):
    batches = make(shards, captioner, shuffle=False)
    inputs, targets, weights = batches[len(batches) - 1]
    assert len(inputs["images"]) == len(targets) == 4
    assert [bool(row.any()) for row in weights] == [True, True, False, False]


def test_captions_per_photo_are_chosen_anew_each_epoch(shards, captioner):
    batches = make(shards, captioner, captions_per_photo=1)
    epochs = []
    for epoch in range(4):
        batches.start_epoch(epoch)
        found = texts_in(batches)
        assert sorted(photo for photo, _ in found) == list(range(TOTAL))
        epochs.append(frozenset(found))
    assert len(set(epochs)) == 4


def test_sources_are_mixed_by_their_passes(tmp_path, captioner):
    first = write_shards(tmp_path / "first", (6,))[0]
    folder = tmp_path / "second"
    folder.mkdir()
    write_shard(folder / "0.tar", {f"{i:03}": make_jpeg(i) for i in range(20, 24)})
    batches = make([first, folder], captioner, passes=[1, 3])
    assert sorted(photos_in(batches)) == sorted([*range(6), *[20, 21, 22, 23] * 3])


def test_the_passes_of_a_run_are_over_all_sources(tmp_path, captioner):
    files = [write_shards(tmp_path / str(i), (count,))[0] for i, count in enumerate((4, 2))]
    options = RunOptions(model="lite0-small", out=tmp_path / "run", settings=["training.passes=3"])
    batches, _ = read_shards(files, passes=[1, 2]).batches("training", captioner, options)
    assert batches.images == 3 * (4 + 2 * 2)


def test_a_photo_that_cannot_be_decoded_costs_itself_alone_and_is_counted(tmp_path, captioner):
    path = tmp_path / "0.tar"
    photos = {f"{i:03}": make_jpeg(i) for i in range(10)}
    write_shard(path, photos | {"003": b"not a photo", "007": b""})
    batches = make(path, captioner, max_bad=0.5)
    for _ in range(2):
        assert sorted(photos_in(batches)) == [0, 1, 2, 4, 5, 6, 8, 9]
    assert batches.losses() == "2 of 10 photos could not be used and were passed over"


def test_a_lost_photo_leaves_the_others_as_they_were(tmp_path, captioner):
    path = tmp_path / "0.tar"
    photos = {f"{i:03}": make_jpeg(i) for i in range(10)}
    write_shard(path, photos)
    whole = photos_in(make(path, captioner))
    write_shard(path, photos | {"003": b"x" * len(photos["003"])})
    assert photos_in(make(path, captioner, max_bad=0.5)) == [n for n in whole if n != 3]


@pytest.mark.parametrize(
    ("harm", "lost"), [("deleted", 14), ("cut", 7), ("written anew", 14), ("overwritten", 1)]
)
def test_a_shard_harmed_while_training_costs_the_harmed_photos_alone(shards, captioner, harm, lost):
    batches = make(shards, captioner, max_bad=0.9, shuffle=False, block=4)
    batches[0]
    index = batches.indexes[1]
    if harm == "deleted":
        shards[1].unlink()
    elif harm == "cut":
        with shards[1].open("r+b") as file:
            file.truncate(int(index.offsets[7]) + 100)
    elif harm == "written anew":
        write_shard(shards[1], {f"{i:03}": make_jpeg(i) for i in range(40, 50)})
    else:
        with shards[1].open("r+b") as file:
            file.seek(int(index.offsets[4]) + 300)
            file.write(b"harm")
    found = photos_in(batches)
    assert sorted(found) == sorted(set(found)) and len(found) == TOTAL - lost
    assert {*range(9), *range(23, 30)} <= set(found) <= set(range(30))
    assert batches.losses().startswith(f"{lost} of 30")


def test_a_shard_that_grew_is_read_as_it_was(shards, captioner):
    batches = make(shards, captioner)
    with shards[0].open("ab") as file:
        file.write(b"\0" * 10240)
    assert sorted(photos_in(batches)) == list(range(TOTAL))
    assert not batches.losses()


def test_too_many_lost_photos_end_the_run_with_a_message(shards, captioner):
    batches = make(shards, captioner, max_bad=0.1, shuffle=False)
    for shard in shards:
        shard.unlink()
    with pytest.raises(TooManyProblems, match=r"at most 10.00% of 30 photos .*its shard is gone"):
        for number in range(len(batches)):
            batches[number]
    assert isinstance(batches.failure, TooManyProblems)


def test_losses_go_on_counting_in_a_run_that_was_stopped(tmp_path, captioner):
    path = tmp_path / "0.tar"
    write_shard(path, {f"{i:03}": make_jpeg(i) if i else b"no photo" for i in range(6)})
    from effcap.trainers.data.shards.skipped import Losses

    for _ in range(2):
        losses = Losses(6, 0.5, tmp_path / "lost.tsv")
        losses.add("a.tar: 1", "text\tin a\nphoto")
        losses.add("a.tar: 2", "nothing")
        assert len(losses) == 2
    lines = (tmp_path / "lost.tsv").read_text().splitlines()
    assert lines == ["a.tar: 1\ttext in a photo", "a.tar: 2\tnothing"]


def test_a_caption_too_long_for_the_decoder_is_left_out_and_counted(tmp_path):
    short = make_captioner(["photo dog"], positions=8)
    shards = write_shards(tmp_path, (6,))
    batches = make(shards, short, max_bad=1.0)
    assert photos_in(batches) == [] and batches.losses().startswith("6 of 6")


def test_what_weighs_nothing_gives_a_loss_of_nought_and_no_gradient(tmp_path, captioner):
    path = tmp_path / "0.tar"
    write_shard(path, {f"{i:03}": b"no photo" for i in range(4)})
    batches = make(path, captioner, max_bad=1.0)
    captioner.compile("sgd", jit_compile=False)
    before = [keras.ops.convert_to_numpy(weight) for weight in captioner.trainable_variables]
    assert captioner.train_on_batch(*batches[0])[0] == 0
    for weight, value in zip(captioner.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)


def test_the_fingerprint_tells_other_data_and_other_options(shards, captioner):
    same = make(shards, captioner).fingerprint
    assert make(shards, captioner).fingerprint == same
    for change in (
        {"batch_size": 2}, {"seed": 1}, {"block": 12}, {"crop": 0.5}, {"passes": [1, 2, 1]},
        {"parts": 2}, {"captions_per_photo": 1}, {"shuffle": False}, {"decoder": "dali-cpu"},
    ):  # fmt: skip
        if change.get("decoder"):
            pytest.importorskip("nvidia.dali")
        assert make(shards, captioner, **change).fingerprint != same, change
    assert make(shards[:2], captioner).fingerprint != same


def test_remote_shards_are_streamed_and_give_the_same_batches(tmp_path, shards, captioner):
    pytest.importorskip("webdataset")
    folder = tmp_path / "indexes"
    names = []
    for path in shards:
        name = f"pipe:cat {path}"
        index = write_index(path)
        remote = type(index)(**{**vars(index), "shard": name, "tar_bytes": 0, "tar_time_ns": 0})
        remote.write(folder / f"{path.stem}.npz")
        names.append(name)
    local = make(shards, captioner, parts=2, part=1)
    streamed = make(names, captioner, parts=2, part=1, index=folder)
    assert contents(local, 1) == contents(streamed, 1)
    assert contents(streamed, 2) == contents(local, 2)


def test_a_remote_shard_that_fails_costs_its_photos_alone(tmp_path, shards, captioner, monkeypatch):
    pytest.importorskip("webdataset")
    monkeypatch.setattr("effcap.trainers.data.shards.photo_bytes.PAUSES", (0.0,))
    folder = tmp_path / "indexes"
    names = []
    for path, command in zip(shards, ("cat", "head -c 3000", "cat"), strict=True):
        index = write_index(path)
        name = f"pipe:{command} {path}"
        remote = type(index)(**{**vars(index), "shard": name, "tar_bytes": 0, "tar_time_ns": 0})
        remote.write(folder / f"{path.stem}.npz")
        names.append(name)
    batches = make(names, captioner, index=folder, max_bad=0.9)
    found = sorted(photos_in(batches))
    assert found[:9] == list(range(9)) and found[-7:] == list(range(23, 30))
    assert 9 < len(found[9:-7]) + 9 < 23
    assert batches.losses().startswith(f"{TOTAL - len(found)} of {TOTAL}")


def test_fit_takes_the_batches(shards, captioner):
    captioner.compile("adamw", jit_compile=keras.backend.backend() == "jax")
    history = captioner.fit(make(shards, captioner), epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_a_tokenizer_can_be_trained_on_the_captions_of_shards(shards):
    captions = read_shards(shards).captions()
    assert sorted(captions) == sorted(text for i in range(TOTAL) for text in make_captions(i))
    assert Tokenizer.train(captions, 300).vocabulary_size <= 300


def test_mirrored_photos_are_only_those_whose_captions_allow_it(tmp_path, captioner):
    batches = make(write_shards(tmp_path, (8,)), captioner, mirror=True)
    rows = [row for _, rows in batches._block(0) for row in rows if row is not None]
    assert any(row.mirror for row in rows) and not all(row.mirror for row in rows)
    plain = make(write_shards(tmp_path, (8,)), captioner)
    assert plain.augmentation == Augmentation()
    assert not any(row.mirror for _, rows in plain._block(0) for row in rows if row is not None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"block": -1}, "block"),
        ({"parts": 3}, "3 processes can share"),
        ({"parts": 2, "part": 2}, "part from 0 to 1"),
        ({"passes": [1, 2]}, "as many passes"),
        ({"passes": [1, -1, 1]}, "passes of at least 0"),
        ({"decoder": "pil"}, "Expected a decoder out of"),
    ],
)
def test_options_out_of_range_are_refused(shards, captioner, options, message):
    with pytest.raises(ValueError, match=message):
        make(shards, captioner, **options)
