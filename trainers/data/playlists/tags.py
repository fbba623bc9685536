"""Tags of tracks as words, and the words' embeddings."""

from __future__ import annotations

import pickle
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

WORD = re.compile(r"[^\W_]+")


def tag_words(tag: str) -> list[str]:
    """The words of a tag: lower-cased, split at punctuation; `r&b` is one word, `rnb`.

    >>> tag_words("Hip-Hop/R&B")
    ['hip', 'hop', 'rnb']
    """
    return WORD.findall(unicodedata.normalize("NFC", tag).lower().replace("r&b", "rnb"))


class TagEmbeddings:
    """Words with their embeddings.

    Args:
        words: V words; each once.
        vectors: (V, C) float32, C = 300 in the published ones.

    Raises:
        ValueError: where they do not belong together.
    """

    def __init__(self, words: Iterable[str], vectors: np.ndarray):
        words = [unicodedata.normalize("NFC", word) for word in words]
        self.vectors = np.asarray(vectors, np.float32)  # (V,C)
        self.numbers = {word: number for number, word in enumerate(words)}
        if self.vectors.ndim != 2 or len(words) != len(self.vectors) or not words:
            raise ValueError(
                "Expected an embedding per word. "
                f"Received: {len(words)} words, embeddings {self.vectors.shape}"
            )
        if len(self.numbers) < len(words):
            raise ValueError("Expected each word once. Received: some of them twice")
        if not np.isfinite(self.vectors).all():
            raise ValueError("Expected embeddings of numbers. Received: NaN or infinity")

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def width(self) -> int:
        """Of an embedding."""
        return self.vectors.shape[1]

    def look_up(self, tags: Iterable[str]) -> tuple[np.ndarray, list[str], list[str]]:
        """(embeddings (m, C), their words, words without an embedding) of the tags.

        Each word once, in the order of first appearance.
        """
        words = dict.fromkeys(word for tag in tags for word in tag_words(tag))
        known = [word for word in words if word in self.numbers]
        rows = [self.numbers[word] for word in known]
        return self.vectors[rows], known, [word for word in words if word not in self.numbers]

    @classmethod
    def from_file(cls, path: str | PathLike) -> TagEmbeddings:
        """Those of a file: an `.npz` that `save` wrote, or `discogs_tags_embeddings.npy` as
        published with PlayNTell, a pickled dict of arrays, of which nothing but strings and arrays
        is unpickled.

        Raises:
            FileNotFoundError: without such a file.
            ValueError: for one of another form.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"Expected a file of tags' embeddings. Received: {path}")
        try:
            if zipfile.is_zipfile(path):
                with np.load(path, allow_pickle=False) as arrays:
                    return cls(arrays["words"].tolist(), arrays["embeddings"])
            with path.open("rb") as file:
                found = _pickled_dict(file)
            return cls(found, np.stack(list(found.values())))
        except Exception as error:  # damaged pickles raise anything
            raise ValueError(
                "Expected tags' embeddings: an .npz with words and embeddings, or an .npy with a "
                f"dict of arrays. Received: {path}: {error}"
            ) from error

    def save(self, path: str | PathLike) -> None:
        """Writes an `.npz` of plain arrays: `words` and `embeddings`."""
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"Expected a file name that ends in .npz. Received: {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, words=np.array(list(self.numbers)), embeddings=self.vectors)


def _pickled_dict(file: BinaryIO) -> Mapping[str, np.ndarray]:
    """The dict in an `.npy` file of one object."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    shape, _, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)
    if shape != () or dtype.kind != "O":
        raise ValueError(f"an array {shape} of {dtype}, not one object")
    found = _ArrayUnpickler(file).load()
    found = found.item() if isinstance(found, np.ndarray) and found.shape == () else found
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__}")
    for word, vector in found.items():
        if not isinstance(word, str) or not isinstance(vector, np.ndarray):
            raise ValueError(f"an entry of {type(word).__name__} and {type(vector).__name__}")
        if vector.ndim != 1 or vector.dtype.kind != "f":
            raise ValueError(f"for {word!r}, an array {vector.shape} of {vector.dtype}")
    return found


class _ArrayUnpickler(pickle.Unpickler):
    """Admits NumPy arrays, besides what needs no class: dicts, lists, strings, numbers."""

    ADMITTED = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        # The array's state follows, with its true shape and type.
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: np.empty(0),
        ("numpy._core.multiarray", "_reconstruct"): lambda *_: np.empty(0),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"a pickle that asks for {module}.{name}")
        return self.ADMITTED[module, name]
