"""Playlists with captions and features as batches."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.images import UnreadablePhoto
from effcap.tokenizers import Tokenizer
from effcap.trainers import plain, tidy
from effcap.trainers.data.augmentation import Augmentation
from effcap.trainers.data.example import TooManyProblems
from effcap.trainers.data.playlists import (
    open_arrays,
    read_caption_records,
    read_playlist_captions,
    read_playlist_dataset,
)
from effcap.trainers.data.playlists.caption_records import files_with_split, read_artists
from helpers.captioners import tiny_hparams
from helpers.playlist_maker import write_playlists
from helpers.playlists import MADE, MODALITIES, hparams, write_json


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


def read(folder):
    return read_playlist_dataset(
        folder / "captions.json", folder / "embeddings", artists=folder / "artists.json"
    )


def make_batches(folder, captioner, **options):
    return read(folder).batches(captioner, **{"batch_size": 4, **options})


def test_files_of_one_or_several_splits_are_read(folder):
    several, _ = read_playlist_captions(folder / "captions.json", "val")
    assert [playlist.name for playlist in several] == ["p9", "p10", "p11"]
    content = json.loads((folder / "captions.json").read_text())["val"]
    single = write_json(folder / "val.json", content)
    assert read_playlist_captions(single, "train") == (several, [])
    assert files_with_split([folder / "captions.json", single]) == [folder / "captions.json"]


def test_captions_are_formatted_then_masked_then_edited(tmp_path):
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
    for caption_format, text in expected.items():
        playlists, problems = read_playlist_captions(path, caption_format=caption_format)
        assert playlists[0].captions[0] == text and playlists[0].name == "7" and not problems
    playlists, problems = read_playlist_captions(path, caption_format="description", edit=tidy)
    assert playlists[0].captions == ("artist0 and artist1 live.",)
    assert len(problems) == 1 and "with text after <description>" in problems[0].reason


def test_names_with_punctuation_are_masked_before_it_is_removed(tmp_path):
    texts = ("Guns N' Roses, AC/DC & P!nk", "...")
    artists = ["AC/DC", "P!nk", "Guns N' Roses"]
    records = [{"playlist_id": 7, "caption": text, "artists": artists} for text in texts]
    path = write_json(tmp_path / "captions.json", records)
    (playlist,), (problem,) = read_playlist_captions(path, edit=plain)
    assert playlist.captions == ("artist2 artist0 & artist1.",)
    assert "[1], playlist 7" in problem.where and "empty text after cleaning" in problem.reason


@pytest.mark.parametrize("kind", ("published", "tracks"))
def test_artists_are_read_from_either_kind_of_file(folder, kind):
    path = folder / ("artists.json" if kind == "published" else "playlists.json")
    assert read_artists(path) == {made.id: list(made.artists) for made in MADE}
    playlists, problems = read_playlist_captions(folder / "captions.json", artists=path)
    assert not problems
    one = next(made for made in MADE[:9] if made.who == "one")
    masked = next(playlist for playlist in playlists if playlist.name == one.id)
    assert "the best of artist0 " in masked.captions[0]
    records, _ = read_caption_records(folder / "captions.json", artists=path)
    assert records[0].caption == MADE[0].captions[0]
    assert records[0].artists == list(MADE[0].artists)


def test_names_are_kept_if_artists_are_unknown(folder):
    playlists, _ = read_playlist_captions(folder / "captions.json")
    assert playlists[0].captions == tuple(MADE[0].captions)


def test_unusable_records_are_problems_with_their_place(tmp_path):
    good = {"playlist_id": "p", "caption": "good"}
    bad = [
        ("text", "expected an object with playlist_id"),
        ({"caption": "c"}, "expected an object with playlist_id"),
        ({"playlist_id": True, "caption": "c"}, "expected an object with playlist_id"),
        ({"playlist_id": "p"}, "expected a caption. Received: None"),
        ({"playlist_id": "p", "caption": " "}, "expected a caption. Received: empty text"),
        ({"playlist_id": "p", "caption": "c", "artists": "Queen"}, "a list of names"),
        ({"playlist_id": "p", "caption": "c", "artists": [{"count": 1}]}, "a list of names"),
        ({"playlist_id": "p", "caption": "my artist4"}, "expected a caption without 'artist4'"),
    ]
    path = write_json(tmp_path / "captions.json", [good, *(record for record, _ in bad)])
    playlists, problems = read_playlist_captions(path)
    assert [playlist.captions for playlist in playlists] == [("good",)]
    assert len(problems) == len(bad)
    by_place = {problem.where.split("[")[1].split("]")[0]: problem for problem in problems}
    for number, (_, words) in enumerate(bad, 1):
        assert words in by_place[str(number)].reason
    assert by_place["4"].where == f"{path}, [4], playlist p"


def test_a_playlist_missing_in_the_artists_file_is_a_problem(folder):
    artists = write_json(folder / "few.json", {"p0": ["Queen"]})
    playlists, problems = read_playlist_captions(folder / "captions.json", artists=artists)
    assert len(playlists) == 1 and len(problems) == 16
    assert "the file of artists" in problems[0].reason and "playlist p1" in problems[0].where


@pytest.mark.parametrize(
    ("content", "words"),
    (
        ({"train": []}, "a split 'val' in .* Received: train"),
        ({}, "a split 'val'.*an empty object"),
        ({"train": 3}, r"Expected a list \[.*an object with the keys train"),
        ("text", r"Expected a list \["),
    ),
)
def test_captions_of_another_structure_are_rejected(tmp_path, content, words):
    with pytest.raises(ValueError, match=words):
        read_playlist_captions(write_json(tmp_path / "captions.json", content), "val")


@pytest.mark.parametrize(
    "content", (3, {"p": 3}, {"p": [3]}, {"p": [{"artist": "a", "count": "b"}]})
)
def test_artists_of_another_structure_are_rejected(tmp_path, content):
    with pytest.raises(ValueError, match="Expected {playlist id: "):
        read_artists(write_json(tmp_path / "artists.json", content))


def test_missing_files_and_files_that_are_not_json_are_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.json"):
        read_playlist_captions(tmp_path / "gone.json")
    for data in ("{", "[" * 100_000):
        (tmp_path / "captions.json").write_text(data)
        with pytest.raises(ValueError, match="Expected JSON"):
            read_playlist_captions(tmp_path / "captions.json")


def test_reading_imports_neither_keras_nor_tensorflow(folder):
    code = (
        "import sys; from effcap.trainers import read_playlist_dataset\n"
        "import effcap.tools.captioning.playlists, effcap.tools.evaluation.playlists\n"
        f"read_playlist_dataset({str(folder / 'captions.json')!r}, "
        f"{str(folder / 'embeddings')!r})\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("hdf5", (False, True))
def test_batches_pad_each_modality_to_the_longest_playlist(tmp_path, captioner, hdf5):
    path = write_playlists(tmp_path, {"train": MADE}, hdf5=hdf5)
    dataset = read_playlist_dataset(tmp_path / "captions.json", path)
    batches = dataset.batches(captioner, batch_size=4, shuffle=False)
    longest = {
        "audio": max(len(made.tracks) for made in MADE),
        "tags": max(len({tag for t in made.tracks for tag in t["tags"]}) for made in MADE),
        "artist": 1,
    }
    arrays, seen = open_arrays(path), set()
    for index in range(len(batches)):
        inputs, _, _ = batches[index]
        _, members = batches._batches[index]
        for modality, feature_dim in MODALITIES.items():
            assert inputs[modality].shape == (4, longest[modality], feature_dim)
            assert inputs[modality].dtype == np.float32
            for row, member in enumerate(members):
                array = arrays.read(modality, batches.paths[member].name, feature_dim)
                np.testing.assert_array_equal(inputs[modality][row, : len(array)], array)
                assert not inputs[modality][row, len(array) :].any()
        seen |= set(members.tolist())
    assert seen == set(range(12))
    previews = batches.previews(3)
    assert [preview.photo for preview in previews] == [None] * 3
    assert previews[1].inputs["audio"].shape == (longest["audio"], 256)


def test_only_the_modalities_of_the_captioner_are_read(folder, tokenizer):
    captioner = Captioner.from_hparams(hparams(tags=300), tokenizer)
    for name in ("audio", "artist"):
        for file in (folder / "embeddings" / name).iterdir():
            file.unlink()
    inputs, _, _ = make_batches(folder, captioner)[0]
    assert set(inputs) == {"tags", "tokens", "segments"}


def test_missing_and_damaged_features_are_left_out_and_reported(folder, captioner):
    features = folder / "embeddings"
    (features / "audio" / "p0.npy").unlink()
    np.save(features / "tags" / "p1.npy", np.ones((2, 200), np.float32))
    np.save(features / "artist" / "p2.npy", np.full((1, 10), np.nan, np.float32))
    np.save(features / "audio" / "p3.npy", np.array([{}]), allow_pickle=True)
    (features / "tags" / "p4.npy").write_bytes((features / "tags" / "p4.npy").read_bytes()[:-9])
    with pytest.raises(TooManyProblems, match="10 of 18 captions"):
        make_batches(folder, captioner)
    with pytest.warns(UserWarning, match="10 of 18 captions"):
        batches = make_batches(folder, captioner, max_bad=0.6)
    reasons = {problem.where: problem.reason for problem in batches.problems}
    assert list(reasons) == [f"playlist p{i}" for i in range(5)]
    expected = ("audio: no such features", "(2, 200)", "NaN", "audio: damaged", "tags: damaged")
    for number, words in enumerate(expected):
        assert words in reasons[f"playlist p{number}"]
    assert batches.num_images == 4 and batches.num_captions == 8


def test_data_without_usable_playlists_is_rejected(folder, captioner):
    for file in (folder / "embeddings" / "tags").iterdir():
        file.write_bytes(b"")
    with pytest.raises(TooManyProblems, match="18 of 18"):
        make_batches(folder, captioner, max_bad=1)


def test_a_modality_without_features_is_an_error(folder, captioner):
    (folder / "embeddings" / "audio").rename(folder / "embeddings" / "sound")
    with pytest.raises(FileNotFoundError, match="No audio features .*encoder.modalities"):
        make_batches(folder, captioner)


def test_features_that_change_during_training_are_reported(folder, captioner):
    batches = make_batches(folder, captioner)
    for made in MADE[:9]:
        np.save(folder / "embeddings" / "audio" / f"{made.id}.npy", np.ones((99, 256)))
    with pytest.raises(UnreadablePhoto, match="audio of playlist p.*at most .*Received: 99"):
        batches[0]
    assert isinstance(batches.failure, UnreadablePhoto)


def test_a_captioner_of_photos_is_rejected(folder, captioner):
    tokenizer = captioner.tokenizer
    vocabulary_size = tokenizer.vocabulary_size
    photos = Captioner.from_hparams(tiny_hparams(vocabulary_size=vocabulary_size), tokenizer)
    with pytest.raises(ValueError, match="Expected a captioner of playlists.*images or features"):
        make_batches(folder, photos)


def test_the_fingerprint_depends_on_the_features(folder, captioner):
    first = make_batches(folder, captioner).fingerprint
    assert make_batches(folder, captioner).fingerprint == first
    path = folder / "embeddings" / "audio" / "p3.npy"
    np.save(path, np.load(path) + 1e-3)
    assert make_batches(folder, captioner).fingerprint != first


def test_augmentation_of_photos_is_rejected(folder, captioner):
    with pytest.raises(ValueError, match="horizontal_flip.*not to playlists"):
        make_batches(folder, captioner, augmentation=Augmentation(horizontal_flip=True))


def test_a_fraction_of_the_playlists_is_selected_by_seed(folder):
    dataset = read(folder)
    few = dataset.subset(0.34, 1)
    assert len(few.examples) == 3 and few.arrays is dataset.arrays
    assert few == replace(dataset, examples=dataset.subset(0.34, 1).examples)
    assert len(list(few.references())) == 3 and len(few.captions()) == 6
