"""Document frequencies of n-grams, the weights of CIDEr."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from os import PathLike
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from effcap.metrics.ngrams import MAX_ORDER, HashedCaptions, Tokens, count_ngrams, flatten


class DocumentFrequencies:
    """Numbers of images whose references contain an n-gram, for n-grams of one to four words.

    Args:
        num_images: number of images.
        hashes: for each order, (G,) uint64: hashes of the n-grams, ascending.
        counts: for each order, (G,): number of images whose references contain the n-gram.
    """

    def __init__(self, num_images: int, hashes: Sequence[np.ndarray], counts: Sequence[np.ndarray]):
        self.num_images, self.hashes, self.counts = num_images, list(hashes), list(counts)

    @classmethod
    def from_references(
        cls, references: Sequence[Sequence[Tokens]], end_token: Hashable | None = None
    ) -> DocumentFrequencies:
        """Counts the n-grams of references.

        Args:
            references: references of each image, in tokens.
            end_token: token appended to every reference.

        Raises:
            ValueError: there are no images, or an image has no references.
            TypeError: references are not tokenized.
        """
        if not len(references):
            raise ValueError("Expected references of at least one image. Received: none")
        if end_token is not None:
            references = [[[*caption, end_token] for caption in group] for group in references]
        captions, images = flatten(references)
        tables = [_count_images(captions, images, n) for n in range(1, MAX_ORDER + 1)]
        return cls(len(references), *zip(*tables, strict=True))

    def idf(self, hashes: np.ndarray, n: int) -> np.ndarray:
        """Returns log(images / images with the n-gram), (G,); unknown n-grams count as in one."""
        table, counts = self.hashes[n - 1], self.counts[n - 1]
        frequencies = np.ones(len(hashes))
        if len(table):
            indices = np.minimum(np.searchsorted(table, hashes), len(table) - 1)
            known = table[indices] == hashes
            frequencies[known] = counts[indices[known]]
        return np.log(self.num_images) - np.log(frequencies)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes an .npz file."""
        arrays = {f"hashes_{n}": table for n, table in enumerate(self.hashes, 1)}
        arrays |= {f"counts_{n}": counts for n, counts in enumerate(self.counts, 1)}
        with Path(path).open("wb") as file:
            np.savez_compressed(file, images=self.num_images, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | PathLike[str]) -> DocumentFrequencies:
        """Reads a file written by `save`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file has another format.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                hashes = [file[f"hashes_{n}"] for n in range(1, MAX_ORDER + 1)]
                counts = [file[f"counts_{n}"] for n in range(1, MAX_ORDER + 1)]
                return cls(int(file["images"]), hashes, counts)
        except (BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"Expected document frequencies written by save in {path}. Received: {error}"
            ) from None


def _count_images(
    captions: HashedCaptions, images: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct n-grams and the number of images that contain each."""
    counts = count_ngrams(captions, n)
    table, indices = np.unique(counts.hashes, return_inverse=True)
    pairs = np.unique(images[counts.rows] * len(table) + indices)
    return table, np.bincount(pairs % max(len(table), 1), minlength=len(table)).astype(np.int32)
