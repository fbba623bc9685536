"""Tests of batches from shards: every photo once, in the same order whoever reads them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import keras
import numpy as np
import pytest

from effcap.tokenizers import Tokenizer
from effcap.trainers import TooManyProblems, read_shards
from effcap.trainers.data.augmentation import Augmentation
from effcap.trainers.data.shards.skipped import SkippedSamples
from helpers.data_maker import make_captioner
from helpers.shard_maker import (
    make_captions,
    make_jpeg,
    shade,
    write_index,
    write_shard,
    write_shards,
)

COUNTS = (9, 14, 7)
TOTAL = sum(COUNTS)


@pytest.fixture(scope="module")
def captioner():
    return make_captioner([text for i in range(51) for text in make_captions(i)])


@pytest.fixture
def shards(tmp_path):
    return write_shards(tmp_path / "shards", COUNTS)


def make(shards, captioner, *, index=None, passes=None, shuffle_block=8, **options):
    """Makes batches of 4 photos with the Pillow decoder."""
    dataset = read_shards(
        shards, index, passes, image_decoder="pillow", shuffle_block=shuffle_block
    )
    return dataset.batches(captioner, **{"batch_size": 4, **options})


def contents(batches, epoch: int) -> list[tuple]:
    batches.start_epoch(epoch)
    return [
        (x["images"].tolist(), x["tokens"].tolist(), x["segments"].tolist(), y.tolist(), w.tolist())
        for x, y, w in (batches[i] for i in range(len(batches)))
    ]


def photos_in(batches) -> list[int]:
    """Returns the numbers of the photos with weight, identified by their gray values."""
    photos = []
    for i in range(len(batches)):
        inputs, _, weights = batches[i]
        for image, weight in zip(inputs["images"], weights, strict=True):
            if weight.any():
                photos.append(round(float(image.mean()) / shade(1)))
    return photos


def texts_in(batches) -> list[tuple[int, str]]:
    """Returns (photo, caption) of all captions in an epoch."""
    texts = []
    for i in range(len(batches)):
        inputs, targets, weights = batches[i]
        for row, image in enumerate(inputs["images"]):
            photo = round(float(image.mean()) / shade(1))
            for segment in range(1, inputs["segments"][row].max() + 1):
                is_caption = (inputs["segments"][row] == segment) & (weights[row] > 0)  # (T,)
                tokens = targets[row][is_caption]
                if len(tokens):
                    assert tokens[-1] == batches.tokenizer.eos_id
                    texts.append((photo, batches.tokenizer.decode(tokens[:-1])))
    return texts


def test_every_caption_occurs_once_per_epoch_with_its_photo(shards, captioner):
    batches = make(shards, captioner)
    expected = sorted((i, text) for i in range(TOTAL) for text in make_captions(i))
    for epoch in range(2):
        batches.start_epoch(epoch)
        assert sorted(texts_in(batches)) == expected
    assert batches.num_captions == len(expected) and batches.num_images == TOTAL
    assert len(batches) == -(-TOTAL // 4)


def test_batches_do_not_depend_on_the_order_of_access(shards, captioner):
    augmentation = Augmentation(horizontal_flip=True, random_crop=0.5, color_jitter=0.3)
    expected = contents(make(shards, captioner, augmentation=augmentation), 3)
    batches = make(shards, captioner, augmentation=augmentation)
    batches.start_epoch(3)
    for number in (5, 0, 7, 2, 5):
        inputs, targets, _ = batches[number]
        assert inputs["images"].tolist() == expected[number][0]
        assert targets.tolist() == expected[number][3]


def test_epochs_and_seeds_have_different_orders(shards, captioner):
    batches = make(shards, captioner)
    first = photos_in(batches)
    batches.start_epoch(1)
    second = photos_in(batches)
    assert first != second
    assert photos_in(make(shards, captioner, seed=1)) != first


@pytest.mark.parametrize("num_processes", [2, 4])
def test_processes_make_their_own_rows_of_the_joint_batches(shards, captioner, num_processes):
    augmentation = Augmentation(horizontal_flip=True, random_crop=0.5)
    options = {"num_processes": num_processes, "augmentation": augmentation}
    joint = make(shards, captioner, **options)
    separate = [
        make(shards, captioner, process_index=index, **options) for index in range(num_processes)
    ]
    assert len({len(batches) for batches in (joint, *separate)}) == 1
    for epoch, number in itertools.product(range(2), range(len(joint))):
        for batches in (joint, *separate):
            batches.start_epoch(epoch)
        expected = joint[number]
        own = [batches[number] for batches in separate]
        for name in ("images", "tokens", "segments"):
            rows = np.concatenate([inputs[name] for inputs, _, _ in own])
            np.testing.assert_array_equal(rows, expected[0][name])
        for i in (1, 2):
            rows = np.concatenate([batch[i] for batch in own])
            np.testing.assert_array_equal(rows, expected[i])


def test_processes_read_different_photos(shards, captioner):
    first, second = (
        photos_in(make(shards, captioner, num_processes=2, process_index=i)) for i in range(2)
    )
    assert sorted(first + second) == list(range(TOTAL)) and not set(first) & set(second)


def test_rows_of_similar_length_share_a_batch(tmp_path, captioner):
    shards = write_shards(tmp_path, (25, 25))
    large, small = (make(shards, captioner, shuffle_block=block).padding for block in (50, 4))
    assert large < small


def test_the_last_batch_is_filled_up_with_rows_of_weight_0(shards, captioner):
    batches = make(shards, captioner, shuffle=False)
    inputs, targets, weights = batches[len(batches) - 1]
    assert len(inputs["images"]) == len(targets) == 4
    assert [bool(row.any()) for row in weights] == [True, True, False, False]


def test_captions_per_photo_are_chosen_anew_each_epoch(shards, captioner):
    batches = make(shards, captioner, captions_per_photo=1)
    epochs = []
    for epoch in range(4):
        batches.start_epoch(epoch)
        texts = texts_in(batches)
        assert sorted(photo for photo, _ in texts) == list(range(TOTAL))
        epochs.append(frozenset(texts))
    assert len(set(epochs)) == 4


def test_shards_are_mixed_by_their_passes(tmp_path, captioner):
    first = write_shards(tmp_path / "first", (6,))[0]
    folder = tmp_path / "second"
    folder.mkdir()
    write_shard(folder / "0.tar", {f"{i:03}": make_jpeg(i) for i in range(20, 24)})
    batches = make([first, folder], captioner, passes=[1, 3])
    assert sorted(photos_in(batches)) == sorted([*range(6), *[20, 21, 22, 23] * 3])


def test_passes_per_epoch_multiply_the_passes_of_shards(tmp_path, captioner):
    files = [write_shards(tmp_path / str(i), (count,))[0] for i, count in enumerate((4, 2))]
    batches = make(files, captioner, passes=[1, 2], passes_per_epoch=3)
    assert batches.num_images == 3 * (4 + 2 * 2)


def test_undecodable_photos_are_skipped_and_counted(tmp_path, captioner):
    path = tmp_path / "0.tar"
    photos = {f"{i:03}": make_jpeg(i) for i in range(10)}
    write_shard(path, photos | {"003": b"not a photo", "007": b""})
    batches = make(path, captioner, max_bad=0.5)
    for _ in range(2):
        assert sorted(photos_in(batches)) == [0, 1, 2, 4, 5, 6, 8, 9]
    assert batches.skipped_summary() == "2 of 10 photos could not be used and were skipped"


def test_a_skipped_photo_does_not_change_the_order_of_the_others(tmp_path, captioner):
    path = tmp_path / "0.tar"
    photos = {f"{i:03}": make_jpeg(i) for i in range(10)}
    write_shard(path, photos)
    complete = photos_in(make(path, captioner))
    write_shard(path, photos | {"003": b"x" * len(photos["003"])})
    assert photos_in(make(path, captioner, max_bad=0.5)) == [n for n in complete if n != 3]


@pytest.mark.parametrize(
    ("damage", "num_skipped"),
    [("deleted", 14), ("truncated", 7), ("replaced", 14), ("overwritten", 1)],
)
def test_damage_during_training_affects_only_the_damaged_photos(
    shards, captioner, damage, num_skipped
):
    batches = make(shards, captioner, max_bad=0.9, shuffle=False, shuffle_block=4)
    batches[0]
    index = batches.planner.indexes[1]
    if damage == "deleted":
        shards[1].unlink()
    elif damage == "truncated":
        with shards[1].open("r+b") as file:
            file.truncate(int(index.offsets[7]) + 100)
    elif damage == "replaced":
        write_shard(shards[1], {f"{i:03}": make_jpeg(i) for i in range(40, 50)})
    else:
        with shards[1].open("r+b") as file:
            file.seek(int(index.offsets[4]) + 300)
            file.write(b"bad!")
    photos = photos_in(batches)
    assert sorted(photos) == sorted(set(photos)) and len(photos) == TOTAL - num_skipped
    assert {*range(9), *range(23, 30)} <= set(photos) <= set(range(30))
    assert batches.skipped_summary().startswith(f"{num_skipped} of 30")


def test_data_appended_to_a_shard_is_ignored(shards, captioner):
    batches = make(shards, captioner)
    with shards[0].open("ab") as file:
        file.write(b"\0" * 10240)
    assert sorted(photos_in(batches)) == list(range(TOTAL))
    assert not batches.skipped_summary()


def test_too_many_skipped_photos_raise_an_error(shards, captioner):
    batches = make(shards, captioner, max_bad=0.1, shuffle=False)
    for shard in shards:
        shard.unlink()
    with pytest.raises(
        TooManyProblems, match=r"4 of 30 photos .*max_bad \(10.00%\).*no longer exists"
    ):
        for number in range(len(batches)):
            batches[number]
    assert isinstance(batches.failure, TooManyProblems)


def test_a_resumed_run_continues_counting(tmp_path):
    for _ in range(2):
        skipped = SkippedSamples(6, 0.5, tmp_path / "skipped.tsv")
        skipped.add("a.tar: 1", "text\tin a\nphoto")
        skipped.add("a.tar: 2", "nothing")
        assert len(skipped) == 2
    lines = (tmp_path / "skipped.tsv").read_text().splitlines()
    assert lines == ["a.tar: 1\ttext in a photo", "a.tar: 2\tnothing"]


def test_the_list_of_skipped_photos_is_kept_only_to_resume(tmp_path, captioner):
    path = tmp_path / "0.tar"
    write_shard(path, {f"{i:03}": make_jpeg(i) if i else b"no photo" for i in range(6)})
    options = {"max_bad": 0.5, "folder": tmp_path / "run"}
    photos_in(make(path, captioner, **options))
    listed = (tmp_path / "run" / "skipped_training.tsv").read_text()
    assert listed.startswith(f"{path}: 000\t")
    assert make(path, captioner, **options, resume=True).skipped_summary().startswith("1 of 6")
    assert not make(path, captioner, **options).skipped_summary()


def test_photos_without_a_short_enough_caption_are_counted(tmp_path):
    short = make_captioner(["photo dog"], max_sequence_length=8)
    shards = write_shards(tmp_path, (6,))
    batches = make(shards, short, max_bad=1.0)
    assert photos_in(batches) == [] and batches.skipped_summary().startswith("6 of 6")


def test_rows_of_weight_0_give_no_loss_and_no_gradient(tmp_path, captioner):
    path = tmp_path / "0.tar"
    write_shard(path, {f"{i:03}": b"no photo" for i in range(4)})
    batches = make(path, captioner, max_bad=1.0)
    captioner.compile("sgd", jit_compile=False)
    before = [keras.ops.convert_to_numpy(weight) for weight in captioner.trainable_variables]
    assert captioner.train_on_batch(*batches[0])[0] == 0
    for weight, value in zip(captioner.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 2},
        {"seed": 1},
        {"shuffle_block": 12},
        {"augmentation": Augmentation(random_crop=0.5)},
        {"passes": [1, 2, 1]},
        {"num_processes": 2},
        {"captions_per_photo": 1},
        {"shuffle": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_fingerprint_depends_on_all_options(shards, captioner, change):
    fingerprint = make(shards, captioner).fingerprint
    assert make(shards, captioner).fingerprint == fingerprint
    assert make(shards, captioner, **change).fingerprint != fingerprint


def test_the_fingerprint_depends_on_shards_fraction_and_decoder(shards, captioner):
    dataset = read_shards(shards, image_decoder="pillow")
    datasets = [dataset, read_shards(shards[:2], image_decoder="pillow"), dataset.subset(0.5)]
    batches = [dataset.batches(captioner, batch_size=4) for dataset in datasets]
    fingerprints = {each.fingerprint for each in batches}
    batches[0].image_decoder.name = "other"
    assert len(fingerprints | {batches[0].fingerprint}) == 4


def stream(shards, folder, commands=("cat", "cat", "cat")) -> list[str]:
    """Returns remote shards that commands read, with their indexes in `folder`."""
    names = []
    for path, command in zip(shards, commands, strict=True):
        names.append(f"pipe:{command} {path}")
        index = replace(write_index(path), shard=names[-1], tar_bytes=0, tar_time_ns=0)
        index.write(folder / f"{path.stem}.npz")
    return names


def test_remote_shards_give_the_same_batches_as_local_ones(tmp_path, shards, captioner):
    pytest.importorskip("webdataset")
    names = stream(shards, tmp_path / "indexes")
    options = {"num_processes": 2, "process_index": 1}
    local = make(shards, captioner, **options)
    streamed = make(names, captioner, index=tmp_path / "indexes", **options)
    assert contents(local, 1) == contents(streamed, 1)
    assert contents(streamed, 2) == contents(local, 2)


def test_previews_are_the_first_readable_photos(tmp_path, shards, captioner):
    pytest.importorskip("webdataset")
    write_shard(shards[0], {f"{i:03}": make_jpeg(i) if i != 1 else b"no photo" for i in range(9)})
    names = stream(shards, tmp_path / "indexes")
    for batches in (
        make(shards, captioner),
        make(names, captioner, index=tmp_path / "indexes"),
    ):
        previews = batches.previews(3)
        assert [preview.photo for preview in previews] == [make_jpeg(i) for i in (0, 2, 3)]
        assert {preview.inputs["images"].shape for preview in previews} == {(32, 32, 3)}
        assert [preview.name.rpartition(": ")[2] for preview in previews] == ["000", "002", "003"]
        assert previews[1].references == make_captions(2)


def test_rows_name_their_photos_and_return_local_ones(tmp_path, shards, captioner):
    pytest.importorskip("webdataset")
    names = stream(shards, tmp_path / "indexes")
    remote = make(names, captioner, index=tmp_path / "indexes")
    for batches in (make(shards, captioner), remote):
        for index in range(len(batches)):
            _, _, weights = batches[index]
            for row in np.flatnonzero(weights.any(axis=1)):
                source = batches.source(index, row)
                number = int(source.name.rpartition(": ")[2])
                assert tuple(batches.texts(batches[index])[row]) == make_captions(number)
                assert source.photo() == (None if batches is remote else make_jpeg(number))


def test_a_failing_remote_shard_affects_only_its_own_photos(
    tmp_path, shards, captioner, monkeypatch
):
    pytest.importorskip("webdataset")
    monkeypatch.setattr("effcap.trainers.data.shards.photo_fetcher.PAUSES", (0.0,))
    names = stream(shards, tmp_path / "indexes", ("cat", "head -c 3000", "cat"))
    batches = make(names, captioner, index=tmp_path / "indexes", max_bad=0.9)
    photos = sorted(photos_in(batches))
    assert photos[:9] == list(range(9)) and photos[-7:] == list(range(23, 30))
    assert 9 < len(photos[9:-7]) + 9 < 23
    assert batches.skipped_summary().startswith(f"{TOTAL - len(photos)} of {TOTAL}")


@pytest.mark.slow
def test_fit_accepts_the_batches(shards, captioner):
    captioner.compile("sgd", jit_compile=keras.backend.backend() == "jax")
    history = captioner.fit(make(shards, captioner), epochs=2, verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"]).all()


def test_a_tokenizer_can_be_trained_on_the_captions(shards):
    captions = read_shards(shards).captions()
    assert sorted(captions) == sorted(text for i in range(TOTAL) for text in make_captions(i))
    assert Tokenizer.train(captions, 300).vocabulary_size <= 300


def test_missing_shards_count_as_problems(shards, captioner):
    dataset = read_shards(shards, image_decoder="pillow")
    shards[0].unlink()
    with pytest.raises(TooManyProblems, match="0.tar: the shard no longer exists"):
        dataset.batches(captioner, batch_size=4)
    with pytest.warns(UserWarning, match="no longer exists"):
        batches = dataset.batches(captioner, batch_size=4, max_bad=0.5)
    assert [problem.num_captions for problem in batches.problems] == [18]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"shuffle_block": -1}, "shuffle_block"),
        ({"num_processes": 3}, "3 processes can share"),
        ({"num_processes": 2, "process_index": 2}, "process_index from 0 to 1"),
        ({"passes": [1, 2]}, "Expected 3 passes"),
        ({"passes": [1, -1, 1]}, "passes of at least 0"),
    ],
)
def test_invalid_options_raise_an_error(shards, captioner, options, message):
    with pytest.raises(ValueError, match=message):
        make(shards, captioner, **options)


def test_unknown_image_decoders_raise_an_error(shards, captioner):
    with pytest.raises(ValueError, match="Expected an image decoder out of"):
        read_shards(shards, image_decoder="pil").batches(captioner)
