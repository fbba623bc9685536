"""Tags of tracks: splitting into words, and word embeddings."""

from __future__ import annotations

import pickle
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

WORD = re.compile(r"[^\W_]+")


def tag_words(tag: str) -> list[str]:
    """Splits a tag into words: lower-cased, split at punctuation, `r&b` read as `rnb`.

    >>> tag_words("Hip-Hop/R&B")
    ['hip', 'hop', 'rnb']
    """
    return WORD.findall(unicodedata.normalize("NFC", tag).lower().replace("r&b", "rnb"))


class TagEmbeddings:
    """Embeddings of the words in tags.

    Args:
        words: V different words.
        vectors: (V, C); C = 300 in the embeddings published with PlayNTell.

    Raises:
        ValueError: the numbers of words and vectors differ, a word is repeated, or a vector is not
            finite.
    """

    def __init__(self, words: Iterable[str], vectors: np.ndarray):
        words = [unicodedata.normalize("NFC", word) for word in words]
        self.vectors = np.asarray(vectors, np.float32)  # (V, C)
        self.indices = {word: index for index, word in enumerate(words)}
        if self.vectors.ndim != 2 or len(words) != len(self.vectors) or not words:
            raise ValueError(
                "Expected one embedding per word. "
                f"Received: {len(words)} words, embeddings {self.vectors.shape}"
            )
        if len(self.indices) < len(words):
            raise ValueError("Expected each word once. Received: repeated words")
        if not np.isfinite(self.vectors).all():
            raise ValueError("Expected finite embeddings. Received: NaN or infinity")

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def feature_dim(self) -> int:
        """Length C of an embedding."""
        return self.vectors.shape[1]

    def look_up(self, tags: Iterable[str]) -> tuple[np.ndarray, list[str], list[str]]:
        """Returns the embeddings of the words in tags, each word once, in order of appearance.

        Returns:
            (embeddings (n, C), their words, words without an embedding).
        """
        words = dict.fromkeys(word for tag in tags for word in tag_words(tag))
        known = [word for word in words if word in self.indices]
        rows = [self.indices[word] for word in known]
        return self.vectors[rows], known, [word for word in words if word not in self.indices]

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> TagEmbeddings:
        """Reads embeddings from a file.

        Args:
            path: an `.npz` written by `save`, or PlayNTell's `discogs_tags_embeddings.npy`, a
                pickled dict of arrays. Only strings, numbers, lists, dicts and arrays are
                unpickled.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file has another format.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"No file of tag embeddings at {path}")
        try:
            if zipfile.is_zipfile(path):
                with np.load(path, allow_pickle=False) as arrays:
                    return cls(arrays["words"].tolist(), arrays["embeddings"])
            with path.open("rb") as file:
                vectors = _unpickle_dict(file)
            return cls(vectors, np.stack(list(vectors.values())))
        except Exception as error:  # a damaged pickle can raise anything
            raise ValueError(
                "Expected tag embeddings: an .npz with words and embeddings, or an .npy with a "
                f"dict of arrays. Received: {path}: {error}"
            ) from error

    def save(self, path: str | PathLike[str]) -> None:
        """Writes an `.npz` of two plain arrays, `words` and `embeddings`.

        Raises:
            ValueError: `path` does not end in .npz.
        """
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"Expected a file name that ends in .npz. Received: {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, words=np.array(list(self.indices)), embeddings=self.vectors)


def _unpickle_dict(file: BinaryIO) -> Mapping[str, np.ndarray]:
    """Reads the dict of vectors in an `.npy` file of one object."""
    version = np.lib.format.read_magic(file)
    v1, v2 = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
    shape, _, dtype = (v1 if version == (1, 0) else v2)(file)
    if shape != () or dtype.kind != "O":
        raise ValueError(f"an array {shape} of {dtype}, not one object")
    content = _ArrayUnpickler(file).load()
    if isinstance(content, np.ndarray) and content.shape == ():
        content = content.item()
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__}")
    for word, vector in content.items():
        if not isinstance(word, str) or not isinstance(vector, np.ndarray):
            raise ValueError(f"an entry of {type(word).__name__} and {type(vector).__name__}")
        if vector.ndim != 1 or vector.dtype.kind != "f":
            raise ValueError(f"for {word!r}, an array {vector.shape} of {vector.dtype}")
    return content


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays, dicts, lists, strings and numbers, and refuses everything else."""

    ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        # Shape and dtype are set afterwards, from the array's pickled state.
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: np.empty(0),
        ("numpy._core.multiarray", "_reconstruct"): lambda *_: np.empty(0),
    }

    def find_class(self, module: str, name: str) -> Any:
        """Returns an allowed class or function; raises UnpicklingError for any other."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"a pickle that imports {module}.{name}")
        return self.ALLOWED[module, name]
