"""Playlists in JSON files, their stored arrays, and the encoder inputs made of them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from effcap.trainers.data.playlists import (
    TagEmbeddings,
    UnreadableArray,
    compute_features,
    open_arrays,
    pad_arrays,
    read_playlists,
)
from effcap.trainers.data.playlists.playlist_features import max_rows, stack_features
from helpers.playlists import write_json

MODALITIES = {"audio": 4, "tags": 3, "artist": 10}
TRACKS = [
    {"id": "a.wav", "artist": "Queen", "tags": ["Rock", "Polka"]},
    {"id": "b.wav", "artist": "ABBA", "tags": ["Pop/Rock"]},
    {"id": 7, "artist": "Queen", "audio": "files/c.wav", "year": 1975},
]


@pytest.fixture
def playlist(tmp_path):
    path = write_json(tmp_path / "playlist.json", {"id": "p1", "tracks": TRACKS})
    return read_playlists(path)[0]


@pytest.fixture
def tags() -> TagEmbeddings:
    return TagEmbeddings(["pop", "rock"], np.arange(6).reshape(2, 3))


@pytest.fixture(params=("folder", "published", "hdf5"))
def store(request, tmp_path):
    """Returns a function that writes an array, and the path to open."""
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


def test_files_may_list_several_playlists(tmp_path):
    content = [{"id": name, "tracks": [{"id": "x"}]} for name in ("p", 2)]
    path = write_json(tmp_path / "p.json", content)
    assert [playlist.id for playlist in read_playlists(path)] == ["p", "2"]
    one = write_json(tmp_path / "one.json", {"id": "q", "tracks": [{"id": "x"}]})
    assert [playlist.id for playlist in read_playlists([path, one])] == ["p", "2", "q"]


@pytest.mark.parametrize(
    ("content", "words"),
    (
        ([], "an empty list"),
        ("text", 'a playlist {"id", "tracks".*"text"'),
        ({"id": "p"}, "a playlist"),
        ({"tracks": TRACKS}, "id, a string or an integer.*null"),
        ({"id": True, "tracks": TRACKS}, "id, a string or an integer.*true"),
        ({"id": "p", "tracks": []}, "tracks in .*an empty list"),
        ([{"id": "p", "tracks": [{"id": "t"}, 3]}], r"a track .*, \[0\], tracks\[1\]. Received: 3"),
        ({"id": "p", "tracks": [{"artist": "Queen"}]}, r"tracks\[0\]"),
        ({"id": "p", "tracks": [{"id": "t", "artist": 5}]}, "artist, a name"),
        ({"id": "p", "tracks": [{"id": "t", "tags": "rock"}]}, "tags, a list of strings"),
        ({"id": "p", "tracks": [{"id": "t", "tags": ["rock", 1]}]}, "tags, a list of strings"),
        ({"id": "p", "tracks": [{"id": "t", "audio": 1}]}, "audio, the path"),
        ([{"id": "p", "tracks": [{"id": "t"}]}] * 2, "id 'p' twice"),
    ),
)
def test_a_file_of_another_structure_is_rejected_with_the_place(tmp_path, content, words):
    with pytest.raises(ValueError, match=f"Expected .*{words}"):
        read_playlists(write_json(tmp_path / "p.json", content))


def test_missing_files_and_other_formats_are_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.json"):
        read_playlists(tmp_path / "gone.json")
    for data in (b"{", b"\xff\xfe", b"[" * 100_000):
        (tmp_path / "p.json").write_bytes(data)
        with pytest.raises(ValueError, match="Expected .*JSON"):
            read_playlists(tmp_path / "p.json")


def test_arrays_are_read_by_modality_and_playlist(store):
    write, path = store
    write("audio", "p1", np.ones((5, 4), np.float64))
    write("tags", "p1", np.zeros((0, 3), np.float32))
    arrays = open_arrays(path)
    assert set(arrays.modalities) == {"audio", "tags"}
    assert arrays.has("audio", "p1") and not arrays.has("audio", "p2")
    assert not arrays.has("artist", "p1")
    read = arrays.read("audio", "p1", 4)
    assert read.shape == (5, 4) and read.dtype == np.float32
    assert arrays.read("tags", "p1", 3).shape == (0, 3)
    arrays.check_modalities(["audio", "tags"])
    with pytest.raises(FileNotFoundError, match="No artist features in .* has audio, tags"):
        arrays.check_modalities(["audio", "artist"])


@pytest.mark.parametrize(
    ("array", "words"),
    (
        (np.ones((2, 5), np.float32), r"shape \(n, 4\). Received: \(2, 5\)"),
        (np.ones(4, np.float32), r"Received: \(4,\)"),
        (np.full((2, 4), np.nan), "NaN"),
        (np.full((2, 4), 1e300), "infinity"),
        (np.ones((2, 4), complex), "complex128"),
        (np.ones((2, 4), bool), "bool"),
    ),
)
def test_unusable_arrays_are_reported_with_the_playlist(store, array, words):
    write, path = store
    write("audio", "p1", array)
    with pytest.raises(
        UnreadableArray, match=f"Cannot read audio of playlist p1: expected .*{words}"
    ):
        open_arrays(path).read("audio", "p1", 4)


@pytest.mark.parametrize("name", ("gone", "../arrays/audio/p1", "..", "/etc/passwd", "a\0b", "."))
def test_ids_cannot_refer_to_files_outside_the_folder(store, name):
    write, path = store
    write("audio", "p1", np.ones((1, 4)))
    with pytest.raises(UnreadableArray, match="no such features in"):
        open_arrays(path).read("audio", name, 4)


def test_damaged_and_pickled_arrays_are_rejected(tmp_path):
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
        with pytest.raises(UnreadableArray, match=f"of playlist {name}: damaged"):
            arrays.read("audio", name, 4)


def test_damaged_hdf5_is_rejected(tmp_path):
    path = tmp_path / "arrays.hdf5"
    with h5py.File(path, "w") as file:
        file["audio/p/q"] = 1.0
        file["tags"] = 1.0
    arrays = open_arrays(path)
    assert arrays.modalities == ("audio",)
    with pytest.raises(UnreadableArray, match="of playlist p: damaged: a group"):
        arrays.read("audio", "p", 4)
    (tmp_path / "cut.hdf5").write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="Expected an HDF5 file.*cut.hdf5"):
        open_arrays(tmp_path / "cut.hdf5")
    with pytest.raises(FileNotFoundError, match="gone"):
        open_arrays(tmp_path / "gone")


def test_arrays_are_padded_with_zeros_to_the_longest():
    padded = pad_arrays([np.ones((2, 3)), np.ones((4, 3)), np.ones((0, 3))], 3)
    assert padded.shape == (3, 4, 3) and padded.dtype == np.float32
    assert padded.sum(axis=(1, 2)).tolist() == [6, 12, 0] and not padded[0, 2:].any()
    assert pad_arrays([np.zeros((0, 3))], 3).shape == (1, 1, 3)


def test_features_are_computed_from_tracks(playlist, tags, tmp_path):
    def audio(paths):
        assert paths == [tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "files" / "c.wav"]
        return iter([ValueError("too short"), np.ones(4), ValueError("not there")])

    features = compute_features(playlist, MODALITIES, tags=tags, audio=audio)
    assert {name: array.shape for name, array in features.arrays.items()} == {
        "audio": (1, 4), "tags": (2, 3), "artist": (1, 10),
    }  # fmt: skip
    assert features.rows["audio"] == ["b.wav (ABBA)"] and features.rows["tags"] == ["rock", "pop"]
    np.testing.assert_allclose(features.arrays["artist"][0, :3], [2 / 3, 1 / 3, 0], rtol=1e-6)
    assert features.unknown_words == ["polka"] and features.empty_modalities == []
    assert features.unreadable_tracks == ["a.wav (Queen): too short", "7 (Queen): not there"]


def test_stored_features_are_preferred(playlist, tags, store):
    write, path = store
    write("audio", "p1", np.full((3, 4), 2.0))
    write("tags", "p1", np.full((5, 3), 3.0))
    features = compute_features(playlist, MODALITIES, stored=open_arrays(path), tags=tags)
    assert features.arrays["audio"].shape == (3, 4) and features.rows["audio"][2] == "7 (Queen)"
    assert (
        features.rows["tags"] == [f"tags {i}" for i in range(1, 6)] and not features.unknown_words
    )
    assert features.arrays["artist"].shape == (1, 10)


def test_modalities_without_features_have_no_rows(playlist):
    features = compute_features(playlist, {"audio": 4, "tags": 3, "mood": 2})
    assert features.empty_modalities == ["audio", "tags", "mood"]
    num_rows = max_rows([features])
    assert num_rows == {"audio": 1, "tags": 1, "mood": 1}
    inputs = stack_features([features], num_rows)
    assert [inputs[name].shape for name in inputs] == [(1, 1, 4), (1, 1, 3), (1, 1, 2)]


def test_features_of_another_dimension_are_rejected(playlist, tags):
    with pytest.raises(ValueError, match="tags features of dimension 300.*Received: dimension 3"):
        compute_features(playlist, {"tags": 300}, tags=tags)
