"""Tags as words, and their embeddings."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from effcap.trainers.data.playlists import TagEmbeddings, tag_words

PUBLISHED = (
    Path(__file__).resolve().parents[3] / "shared" / "playntell" / "discogs_tags_embeddings.npy"
)


@pytest.fixture
def tags() -> TagEmbeddings:
    return TagEmbeddings(["rock", "hip", "hop", "raï"], np.arange(8).reshape(4, 2))


def save_object(path, content) -> Path:
    array = np.empty((), object)
    array[()] = content
    np.save(path, array, allow_pickle=True)
    return path


@pytest.mark.parametrize(
    ("tag", "words"),
    (
        ("Hip-Hop", ["hip", "hop"]),
        ("Folk, World, & Country", ["folk", "world", "country"]),
        ("R&B", ["rnb"]),
        ("RnB/Swing (1990's)", ["rnb", "swing", "1990", "s"]),
        ("Drum n_Bass.", ["drum", "n", "bass"]),
        ("Rai\u0308", ["raï"]),
        (" -- ", []),
    ),
)
def test_tags_are_lower_cased_and_split_at_punctuation(tag, words):
    assert tag_words(tag) == words


def test_each_known_word_has_one_row_in_order_of_appearance(tags):
    vectors, known, unknown = tags.look_up(["Hop/Hip", "Polka", "ROCK", "hip", "polka"])
    assert (known, unknown) == (["hop", "hip", "rock"], ["polka"])
    np.testing.assert_array_equal(vectors, [[4, 5], [2, 3], [0, 1]])
    assert vectors.dtype == np.float32


def test_tags_without_known_words_have_no_rows(tags):
    vectors, known, unknown = tags.look_up(["Polka"])
    assert vectors.shape == (0, 2) and known == [] and unknown == ["polka"]


def test_a_saved_file_contains_the_same_embeddings(tags, tmp_path):
    tags.save(tmp_path / "new" / "tags.npz")
    loaded = TagEmbeddings.from_file(tmp_path / "new" / "tags.npz")
    assert list(loaded.indices) == list(tags.indices)
    np.testing.assert_array_equal(loaded.vectors, tags.vectors)
    with np.load(tmp_path / "new" / "tags.npz", allow_pickle=False) as plain:
        assert set(plain) == {"words", "embeddings"}


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published embeddings are missing")
def test_published_embeddings_equal_those_numpy_reads():
    tags = TagEmbeddings.from_file(PUBLISHED)
    expected = np.load(PUBLISHED, allow_pickle=True).item()
    assert len(tags) == 844 and tags.feature_dim == 300
    for word in ("hip", "rnb", "1983"):
        np.testing.assert_array_equal(tags.look_up([word])[0][0], expected[word])
    assert all(word in tags.indices for word in expected)


@pytest.mark.parametrize("protocol", (3, 4))  # older and newer NumPy
def test_a_pickled_dict_is_read_in_any_protocol(tmp_path, protocol):
    array = np.empty((), object)
    array[()] = {"a": np.ones(3, np.float32), "é": np.arange(3, dtype=np.float32)}
    with (tmp_path / "tags.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        pickle.dump(array, file, protocol=protocol)
    tags = TagEmbeddings.from_file(tmp_path / "tags.npy")
    np.testing.assert_array_equal(tags.look_up(["é", "a"])[0], [[0, 1, 2], [1, 1, 1]])


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("nested", (False, True))
def test_a_pickle_with_code_is_rejected_without_running_it(tmp_path, nested):
    mark = tmp_path / "ran"
    content = {"a": np.ones(2), "b": Evil(mark)} if nested else Evil(mark)
    path = save_object(tmp_path / "evil.npy", content)
    with pytest.raises(ValueError, match="imports pathlib"):
        TagEmbeddings.from_file(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    (
        ({"a": np.ones(2), "b": np.ones(3)}, "same shape"),
        ({"a": np.ones((2, 2))}, r"'a', an array \(2, 2\)"),
        ({"a": "text"}, "an entry of str and str"),
        ({3: np.ones(2)}, "an entry of int and ndarray"),
        ({"a": np.array([np.nan])}, "NaN"),
        ([1, 2], "a list"),
        ({}, ""),
    ),
)
def test_a_pickle_of_other_objects_is_rejected(tmp_path, content, words):
    with pytest.raises(ValueError, match=f"Expected tag embeddings.*{words}"):
        TagEmbeddings.from_file(save_object(tmp_path / "tags.npy", content))


def test_truncated_and_missing_files_are_rejected(tags, tmp_path):
    whole = save_object(tmp_path / "tags.npy", {"a": np.ones(300)}).read_bytes()
    tags.save(tmp_path / "tags.npz")
    plain = (tmp_path / "tags.npz").read_bytes()
    for data in (b"", b"words", whole[:60], whole[:-100], plain[:50], plain[:-30]):
        (tmp_path / "cut").write_bytes(data)
        with pytest.raises(ValueError, match="Expected tag embeddings"):
            TagEmbeddings.from_file(tmp_path / "cut")
    np.save(tmp_path / "plain.npy", np.ones((2, 3)))
    with pytest.raises(ValueError, match="not one object"):
        TagEmbeddings.from_file(tmp_path / "plain.npy")
    with pytest.raises(FileNotFoundError, match="gone.npy"):
        TagEmbeddings.from_file(tmp_path / "gone.npy")


@pytest.mark.parametrize(
    ("words", "vectors"),
    ((["a"], np.ones((2, 3))), (["a", "a"], np.ones((2, 3))), ([], np.ones((0, 3)))),
)
def test_words_must_match_the_embeddings(words, vectors):
    with pytest.raises(ValueError, match="Expected"):
        TagEmbeddings(words, vectors)
