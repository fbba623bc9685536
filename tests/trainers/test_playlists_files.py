"""Playlists from JSON, their arrays on disk, and what a captioner takes of them."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from effcap.tools.captioning.playlist_attention import attention_lines, looked_at, row_attention
from effcap.trainers.data.playlists import (
    BadArray,
    TagEmbeddings,
    features_of,
    open_arrays,
    pad_arrays,
    read_playlists,
)
from effcap.trainers.data.playlists.playlist_features import batch_features, longest_rows

MODALITIES = {"audio": 4, "tags": 3, "artist": 10}
TRACKS = [
    {"id": "a.wav", "artist": "Queen", "tags": ["Rock", "Polka"]},
    {"id": "b.wav", "artist": "ABBA", "tags": ["Pop/Rock"]},
    {"id": 7, "artist": "Queen", "audio": "files/c.wav", "year": 1975},
]


def write_json(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def playlist(tmp_path):
    path = write_json(tmp_path / "playlist.json", {"id": "p1", "tracks": TRACKS})
    return read_playlists(path)[0]


@pytest.fixture
def tags() -> TagEmbeddings:
    return TagEmbeddings(["pop", "rock"], np.arange(6).reshape(2, 3))


@pytest.fixture(params=("folder", "published", "hdf5"))
def store(request, tmp_path):
    """A function that writes an array, and the path to open."""
    if request.param == "hdf5":
        path = tmp_path / "arrays.hdf5"

        def write(modality, name, array):
            with h5py.File(path, "a") as file:
                file[f"{modality}/{name}"] = array
    else:
        path = tmp_path / "arrays"
        path.mkdir()

        def write(modality, name, array):
            place = f"playlists_{modality}_embedding" if request.param == "published" else modality
            (path / place).mkdir(exist_ok=True)
            np.save(path / place / f"{name}.npy", array)

    return write, path


def test_a_playlist_has_tracks_artists_and_tags(playlist, tmp_path):
    assert playlist.id == "p1" and playlist.artists == {"Queen": 2, "ABBA": 1}
    assert [track.id for track in playlist.tracks] == ["a.wav", "b.wav", "7"]
    assert playlist.tracks[0].audio == tmp_path / "a.wav"
    assert playlist.tracks[2].audio == tmp_path / "files" / "c.wav"
    assert list(playlist.tags) == ["Rock", "Polka", "Pop/Rock"]


def test_a_file_may_list_several_playlists(tmp_path):
    content = [{"id": name, "tracks": [{"id": "x"}]} for name in ("p", 2)]
    assert [p.id for p in read_playlists(write_json(tmp_path / "p.json", content))] == ["p", "2"]


@pytest.mark.parametrize(
    ("content", "words"),
    (
        ([], "an empty list"),
        ("text", 'a playlist {"id", "tracks".*"text"'),
        ({"id": "p"}, "a playlist"),
        ({"tracks": TRACKS}, "id, a text or a number.*null"),
        ({"id": True, "tracks": TRACKS}, "id, a text or a number.*true"),
        ({"id": "p", "tracks": []}, "tracks in .*an empty list"),
        ([{"id": "p", "tracks": [{"id": "t"}, 3]}], r"a track .*, \[0\], tracks\[1\]. Received: 3"),
        ({"id": "p", "tracks": [{"artist": "Queen"}]}, r"tracks\[0\]"),
        ({"id": "p", "tracks": [{"id": "t", "artist": 5}]}, "artist, a name"),
        ({"id": "p", "tracks": [{"id": "t", "tags": "rock"}]}, "tags, a list of texts"),
        ({"id": "p", "tracks": [{"id": "t", "tags": ["rock", 1]}]}, "tags, a list of texts"),
        ({"id": "p", "tracks": [{"id": "t", "audio": 1}]}, "audio, the path"),
        ([{"id": "p", "tracks": [{"id": "t"}]}] * 2, "id 'p' twice"),
    ),
)
def test_a_file_of_another_form_is_refused_by_the_place(tmp_path, content, words):
    with pytest.raises(ValueError, match=f"Expected .*{words}"):
        read_playlists(write_json(tmp_path / "p.json", content))


def test_a_file_that_is_gone_or_no_json_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.json"):
        read_playlists(tmp_path / "gone.json")
    for data in (b"{", b"\xff\xfe", b"[" * 100_000):
        (tmp_path / "p.json").write_bytes(data)
        with pytest.raises(ValueError, match="Expected JSON"):
            read_playlists(tmp_path / "p.json")


def test_arrays_are_read_by_modality_and_playlist(store):
    write, path = store
    write("audio", "p1", np.ones((5, 4), np.float64))
    write("tags", "p1", np.zeros((0, 3), np.float32))
    arrays = open_arrays(path)
    assert set(arrays.modalities) == {"audio", "tags"}
    assert arrays.holds("audio", "p1") and not arrays.holds("audio", "p2")
    assert not arrays.holds("artist", "p1")
    read = arrays.read("audio", "p1", 4)
    assert read.shape == (5, 4) and read.dtype == np.float32
    assert arrays.read("tags", "p1", 3).shape == (0, 3)
    arrays.check(["audio", "tags"])
    with pytest.raises(FileNotFoundError, match="Expected features artist in .* audio, tags"):
        arrays.check(["audio", "artist"])


@pytest.mark.parametrize(
    ("array", "words"),
    (
        (np.ones((2, 5), np.float32), r"n rows of 4. Received: \(2, 5\)"),
        (np.ones(4, np.float32), r"Received: \(4,\)"),
        (np.full((2, 4), np.nan), "NaN"),
        (np.full((2, 4), 1e300), "infinity"),
        (np.ones((2, 4), complex), "complex128"),
        (np.ones((2, 4), bool), "bool"),
    ),
)
def test_an_array_that_cannot_be_used_is_told_with_its_playlist(store, array, words):
    write, path = store
    write("audio", "p1", array)
    with pytest.raises(BadArray, match=f"Cannot read audio of playlist p1: expected .*{words}"):
        open_arrays(path).read("audio", "p1", 4)


@pytest.mark.parametrize("name", ("gone", "../arrays/audio/p1", "..", "/etc/passwd", "a\0b", "."))
def test_a_name_that_leads_out_of_the_folder_holds_nothing(store, name):
    write, path = store
    write("audio", "p1", np.ones((1, 4)))
    with pytest.raises(BadArray, match="there is none in"):
        open_arrays(path).read("audio", name, 4)


def test_damaged_and_pickled_arrays_are_told_and_not_run(tmp_path):
    folder = tmp_path / "audio"
    folder.mkdir()
    np.save(folder / "good.npy", np.ones((50, 4), np.float32))
    whole = (folder / "good.npy").read_bytes()
    array = np.empty((2, 4), object)
    array[:] = 1.0
    np.save(folder / "pickled.npy", array, allow_pickle=True)
    (folder / "cut.npy").write_bytes(whole[:-8])
    (folder / "empty.npy").write_bytes(b"")
    (folder / "text.npy").write_bytes(b"[1, 2]")
    vast = whole.replace(b"(50, 4)", b"(1" + b"0" * 12 + b", 4)")
    (folder / "vast.npy").write_bytes(vast)
    with (folder / "several.npy").open("wb") as file:
        np.savez(file, np.ones((2, 4)))
    arrays = open_arrays(tmp_path)
    for name in ("pickled", "cut", "empty", "text", "vast", "several"):
        with pytest.raises(BadArray, match=f"of playlist {name}: damaged"):
            arrays.read("audio", name, 4)


def test_damaged_hdf5_is_told(tmp_path):
    path = tmp_path / "arrays.hdf5"
    with h5py.File(path, "w") as file:
        file["audio/p/q"] = 1.0
        file["tags"] = 1.0
    arrays = open_arrays(path)
    assert arrays.modalities == ("audio",)
    with pytest.raises(BadArray, match="of playlist p: damaged: a group"):
        arrays.read("audio", "p", 4)
    (tmp_path / "cut.hdf5").write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="Expected an HDF5 file.*cut.hdf5"):
        open_arrays(tmp_path / "cut.hdf5")
    with pytest.raises(FileNotFoundError, match="gone"):
        open_arrays(tmp_path / "gone")


def test_arrays_are_padded_with_rows_of_zeros_to_the_longest():
    padded = pad_arrays([np.ones((2, 3)), np.ones((4, 3)), np.ones((0, 3))], 3)
    assert padded.shape == (3, 4, 3) and padded.dtype == np.float32
    assert padded.sum(axis=(1, 2)).tolist() == [6, 12, 0] and not padded[0, 2:].any()
    assert pad_arrays([np.zeros((0, 3))], 3).shape == (1, 1, 3)


def test_features_come_from_tracks_where_none_are_given(playlist, tags, tmp_path):
    def audio(paths):
        assert paths == [tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "files" / "c.wav"]
        return iter([ValueError("too short"), np.ones(4), ValueError("not there")])

    found = features_of(playlist, MODALITIES, tags=tags, audio=audio)
    assert {name: array.shape for name, array in found.arrays.items()} == {
        "audio": (1, 4), "tags": (2, 3), "artist": (1, 10),
    }  # fmt: skip
    assert found.rows["audio"] == ["b.wav (ABBA)"] and found.rows["tags"] == ["rock", "pop"]
    np.testing.assert_allclose(found.arrays["artist"][0, :3], [2 / 3, 1 / 3, 0], rtol=1e-6)
    assert found.unknown == ["polka"] and found.empty == []
    assert found.missing == ["a.wav (Queen): too short", "7 (Queen): not there"]


def test_given_features_come_first(playlist, tags, store):
    write, path = store
    write("audio", "p1", np.full((3, 4), 2.0))
    write("tags", "p1", np.full((5, 3), 3.0))
    found = features_of(playlist, MODALITIES, given=open_arrays(path), tags=tags)
    assert found.arrays["audio"].shape == (3, 4) and found.rows["audio"][2] == "7 (Queen)"
    assert found.rows["tags"] == [f"tags {i}" for i in range(1, 6)] and found.unknown == []
    assert found.arrays["artist"].shape == (1, 10)


def test_what_nothing_is_known_of_has_no_rows_and_is_told(playlist):
    found = features_of(playlist, {"audio": 4, "tags": 3, "mood": 2})
    assert found.empty == ["audio", "tags", "mood"]
    rows = longest_rows([found])
    assert rows == {"audio": 1, "tags": 1, "mood": 1}
    inputs = batch_features([found], rows)
    assert [inputs[name].shape for name in inputs] == [(1, 1, 4), (1, 1, 3), (1, 1, 2)]


def test_features_of_another_width_are_refused(playlist, tags):
    with pytest.raises(ValueError, match="Expected tags of width 300.*Received: width 3"):
        features_of(playlist, {"tags": 300}, tags=tags)


def test_attention_is_the_mean_over_layers_and_heads():
    rng = np.random.default_rng(0)
    shapes = ((2, 3, 5, 4), (2, 3, 5, 2))  # (B,H,T,S) of two memories
    layers = [[rng.random(shape) for shape in shapes] for _ in range(2)]
    audio, tags = row_attention(layers, 1, 4)
    assert audio.shape == (4, 4) and tags.shape == (4, 2)
    expected = np.mean([layer[0][1, :, 2, 3].mean() for layer in layers])
    np.testing.assert_allclose(audio[2, 3], expected)


def test_attention_is_told_by_row_the_most_first_with_the_word_it_was_for():
    weights = {
        "audio": np.array([[0.2, 0.5, 0.3, 0.0], [0.1, 0.9, 0.0, 0.0]]),
        "tags": np.array([[0.0], [0.0]]),
    }
    rows = {"audio": ["a.wav", "b.wav", "c.wav"], "tags": []}
    looked = looked_at(weights, rows, [" slow", " rock"])
    assert looked["audio"][0] == {"row": "b.wav", "share": 0.7, "word": "rock"}
    assert [row["row"] for row in looked["audio"]] == ["b.wav", "a.wav", "c.wav"]
    assert attention_lines(looked, shown=2) == [
        "audio:",
        "   70.0%  b.wav, at 'rock'",
        "   15.0%  a.wav, at 'slow'",
        "   15.0%  1 others",
        "tags: nothing to look at",
    ]
