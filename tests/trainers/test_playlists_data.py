"""Playlists with captions and features into batches."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.playlist_maker import write_playlists
from helpers.playlists import MADE, MODALITIES, hparams, write_json

from effcap.captioner import Captioner
from effcap.images import UnreadablePhoto
from effcap.tokenizers.tokenizer import Tokenizer
from effcap.trainers import (
    RunOptions,
    TooManyProblems,
    playlist_dataset,
    read_playlist_captions,
    read_playlist_data,
)
from effcap.trainers.data.playlists import open_arrays
from effcap.trainers.data.playlists.caption_records import read_artists, read_records, with_split


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([text for made in MADE for text in made.captions], 300)


@pytest.fixture(scope="module")
def captioner(tokenizer):
    return Captioner.from_hparams(hparams(), tokenizer)


@pytest.fixture
def folder(tmp_path):
    write_playlists(tmp_path, {"train": MADE[:9], "val": MADE[9:]})
    return tmp_path


def dataset(folder, captioner, **options):
    given = {"batch_size": 4, "artists": folder / "artists.json", **options}
    return playlist_dataset(folder / "captions.json", folder / "embeddings", captioner, **given)


def test_a_file_of_one_split_or_of_several_is_read(folder):
    several, _ = read_playlist_captions(folder / "captions.json", "val")
    assert [playlist.name for playlist in several] == ["p9", "p10", "p11"]
    content = json.loads((folder / "captions.json").read_text())["val"]
    single = write_json(folder / "val.json", content)
    assert read_playlist_captions(single, "train") == (several, [])
    assert with_split([folder / "captions.json", single]) == [folder / "captions.json"]


def test_captions_are_formatted_then_edited_then_masked(tmp_path):
    record = {
        "playlist_id": 7,
        "caption": "<title> best of queen <description> QUEEN and Abba live",
        "artists": ["ABBA", "Queen", "queen"],
    }
    path = write_json(tmp_path / "captions.json", [record, {**record, "caption": "<title> b"}])
    expected = {
        "as-is": "<title> best of artist0 <description> artist0 and artist1 live",
        "title": "best of artist0",
        "both": "best of artist0 <delimiter> artist0 and artist1 live",
    }
    for form, text in expected.items():
        playlists, problems = read_playlist_captions(path, form=form)
        assert playlists[0].captions[0] == text and playlists[0].name == "7" and not problems
    playlists, problems = read_playlist_captions(
        path, form="description", edit=lambda text: text.replace("live", "Queen!")
    )
    assert playlists[0].captions == ("artist0 and artist1 artist0!",)
    assert len(problems) == 1 and "a text after <description>" in problems[0].reason


@pytest.mark.parametrize("kind", ("published", "tracks"))
def test_artists_come_from_a_file_of_either_kind(folder, kind):
    path = folder / ("artists.json" if kind == "published" else "playlists.json")
    known = read_artists(path)
    assert known == {made.id: list(made.artists) for made in MADE}
    playlists, problems = read_playlist_captions(folder / "captions.json", artists=path)
    assert not problems
    one = next(made for made in MADE[:9] if made.who == "one")
    found = next(playlist for playlist in playlists if playlist.name == one.id)
    assert "the best of artist0 " in found.captions[0]
    records, _ = read_records(folder / "captions.json", artists=path)
    assert records[0].caption == MADE[0].captions[0]
    assert records[0].artists == list(MADE[0].artists)


def test_without_artists_names_stay(folder):
    playlists, _ = read_playlist_captions(folder / "captions.json")
    assert playlists[0].captions == tuple(MADE[0].captions)


def test_records_that_cannot_be_used_are_problems_with_their_place(tmp_path):
    good = {"playlist_id": "p", "caption": "good"}
    bad = [
        ("text", "an object with playlist_id"),
        ({"caption": "c"}, "an object with playlist_id"),
        ({"playlist_id": True, "caption": "c"}, "an object with playlist_id"),
        ({"playlist_id": "p"}, "a caption. Received: None"),
        ({"playlist_id": "p", "caption": " "}, "a caption. Received: nothing"),
        ({"playlist_id": "p", "caption": "c", "artists": "Queen"}, "a list of names"),
        ({"playlist_id": "p", "caption": "c", "artists": [{"count": 1}]}, "a list of names"),
        ({"playlist_id": "p", "caption": "my artist4"}, "without 'artist4'"),
    ]
    path = write_json(tmp_path / "captions.json", [good, *(record for record, _ in bad)])
    playlists, problems = read_playlist_captions(path)
    assert [playlist.captions for playlist in playlists] == [("good",)]
    assert len(problems) == len(bad)
    by_place = {problem.where.split("[")[1].split("]")[0]: problem for problem in problems}
    for number, (_, words) in enumerate(bad, 1):
        problem = by_place[str(number)]
        assert problem.reason.startswith("expected") and words in problem.reason
    assert by_place["4"].where == f"{path}, [4], playlist p"


def test_a_playlist_that_the_file_of_artists_lacks_is_a_problem(folder):
    artists = write_json(folder / "few.json", {"p0": ["Queen"]})
    playlists, problems = read_playlist_captions(folder / "captions.json", artists=artists)
    assert len(playlists) == 1 and len(problems) == 16
    assert "expected its artists" in problems[0].reason and "playlist p1" in problems[0].where


@pytest.mark.parametrize(
    ("content", "words"),
    (
        ({"train": []}, "a split 'val' in .* Received: train"),
        ({}, "a split 'val'.*an empty object"),
        ({"train": 3}, r"Expected a list \[.*an object with the keys train"),
        ("text", r"Expected a list \["),
    ),
)
def test_a_file_of_captions_of_another_form_is_refused(tmp_path, content, words):
    with pytest.raises(ValueError, match=words):
        read_playlist_captions(write_json(tmp_path / "captions.json", content), "val")


@pytest.mark.parametrize(
    "content", (3, {"p": 3}, {"p": [3]}, {"p": [{"artist": "a", "count": "b"}]})
)
def test_a_file_of_artists_of_another_form_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match="Expected {playlist id: "):
        read_artists(write_json(tmp_path / "artists.json", content))


def test_files_that_are_gone_or_no_json_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.json"):
        read_playlist_captions(tmp_path / "gone.json")
    for data in ("{", "[" * 100_000):
        (tmp_path / "captions.json").write_text(data)
        with pytest.raises(ValueError, match="Expected JSON"):
            read_playlist_captions(tmp_path / "captions.json")


def test_reading_and_checking_captions_imports_neither_keras_nor_tensorflow(folder):
    import subprocess
    import sys

    code = (
        "import sys; from effcap.trainers import read_playlist_data\n"
        f"read_playlist_data({str(folder / 'captions.json')!r}, {str(folder / 'embeddings')!r})\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("hdf5", (False, True))
def test_batches_hold_each_modality_padded_to_the_longest(tmp_path, captioner, hdf5):
    path = write_playlists(tmp_path, {"train": MADE}, hdf5=hdf5)
    batches = playlist_dataset(
        tmp_path / "captions.json", path, captioner, batch_size=4, shuffle=False
    )
    longest = {
        "audio": max(len(made.tracks) for made in MADE),
        "tags": max(len({tag for t in made.tracks for tag in t["tags"]}) for made in MADE),
        "artist": 1,
    }
    arrays, seen = open_arrays(path), set()
    for index in range(len(batches)):
        inputs, _, _ = batches[index]
        _, members = batches._batches[index]
        for modality, width in MODALITIES.items():
            assert inputs[modality].shape == (4, longest[modality], width)
            assert inputs[modality].dtype == np.float32
            for row, member in enumerate(members):
                array = arrays.read(modality, batches.paths[member].name, width)
                np.testing.assert_array_equal(inputs[modality][row, : len(array)], array)
                assert not inputs[modality][row, len(array) :].any()
        seen |= set(members.tolist())
    assert seen == set(range(12))
    samples = batches.samples(3)
    assert [sample.photo for sample in samples] == [None] * 3
    assert samples[1].inputs["audio"].shape == (longest["audio"], 256)


def test_a_captioner_of_some_modalities_reads_those_alone(folder, tokenizer):
    captioner = Captioner.from_hparams(hparams(tags=300), tokenizer)
    for name in ("audio", "artist"):
        for file in (folder / "embeddings" / name).iterdir():
            file.unlink()
    inputs, _, _ = dataset(folder, captioner)[0]
    assert set(inputs) == {"tags", "tokens", "segments"}


def test_missing_and_broken_features_are_left_out_and_named(folder, captioner):
    place = folder / "embeddings"
    (place / "audio" / "p0.npy").unlink()
    np.save(place / "tags" / "p1.npy", np.ones((2, 200), np.float32))
    np.save(place / "artist" / "p2.npy", np.full((1, 10), np.nan, np.float32))
    np.save(place / "audio" / "p3.npy", np.array([{}]), allow_pickle=True)
    (place / "tags" / "p4.npy").write_bytes((place / "tags" / "p4.npy").read_bytes()[:-9])
    with pytest.raises(TooManyProblems, match="10 of 18 captions"):
        dataset(folder, captioner)
    with pytest.warns(UserWarning, match="10 of 18 captions"):
        batches = dataset(folder, captioner, max_bad=0.6)
    told = {problem.where: problem.reason for problem in batches.problems}
    assert list(told) == [f"playlist p{i}" for i in range(5)]
    for name, words in enumerate(("audio: there is none", "(2, 200)", "NaN", "audio: damaged",
                                  "tags: damaged")):  # fmt: skip
        assert words in told[f"playlist p{name}"]
    assert batches.images == 4 and batches.captions_left == 8


def test_no_usable_playlist_at_all_is_an_error(folder, captioner):
    for file in (folder / "embeddings" / "tags").iterdir():
        file.write_bytes(b"")
    with pytest.raises(TooManyProblems, match="18 of 18"):
        dataset(folder, captioner, max_bad=1)


def test_a_modality_without_any_features_stops_it_at_once(folder, captioner):
    (folder / "embeddings" / "audio").rename(folder / "embeddings" / "sound")
    with pytest.raises(FileNotFoundError, match="Expected features audio .*encoder.modalities"):
        dataset(folder, captioner)


def test_features_that_break_in_training_are_told(folder, captioner):
    batches = dataset(folder, captioner)
    for made in MADE[:9]:
        np.save(folder / "embeddings" / "audio" / f"{made.id}.npy", np.ones((99, 256)))
    with pytest.raises(UnreadablePhoto, match="audio of playlist p.*at most .*99 by now"):
        batches[0]
    assert isinstance(batches.failure, UnreadablePhoto)


def test_a_captioner_of_photos_is_refused(folder):
    from helpers.data_maker import make_captioner

    with pytest.raises(ValueError, match="Expected a captioner of playlists.*images or features"):
        dataset(folder, make_captioner())


def test_the_fingerprint_tells_other_features_apart(folder, captioner):
    first = dataset(folder, captioner).fingerprint
    assert dataset(folder, captioner).fingerprint == first
    path = folder / "embeddings" / "audio" / "p3.npy"
    array = np.load(path)
    np.save(path, array + 1e-3)
    assert dataset(folder, captioner).fingerprint != first


def test_augmentation_for_photos_is_refused(folder, captioner, tmp_path):
    data = read_playlist_data(folder / "captions.json", folder / "embeddings")
    path = write_json(tmp_path / "tiny.json", hparams())
    options = RunOptions(model=path, out=tmp_path / "run", settings=["training.mirror=true"])
    with pytest.raises(ValueError, match="no mirror, crop or colour.*, with playlists"):
        data.batches("training", captioner, options)


def test_a_share_of_the_playlists_is_chosen_by_seed(folder):
    data = read_playlist_data(folder / "captions.json", folder / "embeddings")
    few = data.subset(0.34, 1)
    assert len(few.photos) == 3 and few.arrays is data.arrays
    assert few == replace(data, photos=data.subset(0.34, 1).photos)
    assert len(list(few.references())) == 3 and len(few.captions()) == 6
