"""How many images' references have an n-gram."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from os import PathLike
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from effcap.metrics.ngrams import ORDERS, Captions, Tokens, count_ngrams, flatten


class DocumentFrequencies:
    """How many images' references have an n-gram, for n-grams of one to four words.

    Args:
        images: how many images there are.
        hashes: for each order, (G,) uint64: the n-grams, ascending.
        counts: for each order, (G,): in the references of how many images each is.
    """

    def __init__(self, images: int, hashes: Sequence[np.ndarray], counts: Sequence[np.ndarray]):
        self.images, self.hashes, self.counts = images, list(hashes), list(counts)

    @classmethod
    def of(
        cls, references: Sequence[Sequence[Tokens]], end_token: Hashable | None = None
    ) -> DocumentFrequencies:
        """Counts them.

        Args:
            references: of each image, its captions in tokens.
            end_token: a word put at the end of each.

        Raises:
            ValueError: without images, or for an image without references.
            TypeError: for references that are not tokenized.
        """
        if not len(references):
            raise ValueError("Expected references of at least one image. Received: none")
        if end_token is not None:
            references = [[[*caption, end_token] for caption in group] for group in references]
        captions, images = flatten(references)
        found = [_images_with(captions, images, n) for n in range(1, ORDERS + 1)]
        return cls(len(references), *zip(*found, strict=True))

    def idf(self, hashes: np.ndarray, n: int) -> np.ndarray:
        """(G,) log(images / images with the n-gram); one that no image has counts as in one."""
        table, counts = self.hashes[n - 1], self.counts[n - 1]
        frequencies = np.ones(len(hashes))
        if len(table):
            at = np.minimum(np.searchsorted(table, hashes), len(table) - 1)
            known = table[at] == hashes
            frequencies[known] = counts[at[known]]
        return np.log(self.images) - np.log(frequencies)

    def save(self, path: str | PathLike) -> None:
        """Writes them as an .npz file."""
        arrays = {f"hashes_{n}": table for n, table in enumerate(self.hashes, 1)}
        arrays |= {f"counts_{n}": counts for n, counts in enumerate(self.counts, 1)}
        with Path(path).open("wb") as file:
            np.savez_compressed(file, images=self.images, **arrays)

    @classmethod
    def load(cls, path: str | PathLike) -> DocumentFrequencies:
        """Reads what `save` wrote; ValueError for anything else, FileNotFoundError without it."""
        try:
            with np.load(path, allow_pickle=False) as file:
                hashes = [file[f"hashes_{n}"] for n in range(1, ORDERS + 1)]
                counts = [file[f"counts_{n}"] for n in range(1, ORDERS + 1)]
                return cls(int(file["images"]), hashes, counts)
        except (BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"Expected document frequencies written by save in {path}. Received: {error}"
            ) from None


def _images_with(captions: Captions, images: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(the n-grams, in how many images each is)."""
    counts = count_ngrams(captions, n)
    table, places = np.unique(counts.hashes, return_inverse=True)
    pairs = np.unique(images[counts.rows] * len(table) + places)
    return table, np.bincount(pairs % max(len(table), 1), minlength=len(table)).astype(np.int32)
