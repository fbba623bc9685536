"""CIDEr and CIDEr-D."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from effcap.metrics.frequencies import DocumentFrequencies
from effcap.metrics.ngrams import (
    MAX_ORDER,
    HashedCaptions,
    NgramIndex,
    Tokens,
    count_ngrams,
    flatten,
)

SCALE = 10.0


@dataclass(frozen=True)
class _References:
    """The weighted n-grams of one order of R references, sorted by image and n-gram."""

    index: NgramIndex
    weights: np.ndarray  # (G,)
    rows: np.ndarray  # (G,) index of the reference
    norms: np.ndarray  # (R,)


class PlainCider:
    """CIDEr as defined in section 3 of Vedantam et al., 2015, without the changes of CIDEr-D.

    COCO's server and pycocoevalcap use the name CIDEr for CIDEr-D: use `CiderD` to compare with
    published scores.

    With g(c) the vector of the n-grams of caption c, each count multiplied by
    log(images / images whose references contain the n-gram), CIDEr-n is the mean over references s
    of g(c)·g(s) / (|g(c)| |g(s)|), and CIDEr is ten times the mean of CIDEr-1 to CIDEr-4. Words are
    not stemmed, as in the code published by the authors.

    References are counted once, so that `score` is fast enough for rewards.

    Args:
        references: references of each image, in tokens (words or token ids).
        frequencies: document frequencies; those of `references` by default, which should then be of
            many images: with a single image all scores are 0.
        end_token: token appended to references and to finished candidates, which lowers the score
            of truncated captions, as in self-critical training (Rennie et al., 2017). `frequencies`
            must include it too.

    Raises:
        ValueError: there are no images, or an image has no references.
        TypeError: references are not tokenized.

    Example:
        >>> cider = CiderD([[tokenize(text) for text in texts] for texts in references])
        >>> rewards = cider.score(captions, images)
    """

    def __init__(
        self,
        references: Sequence[Sequence[Tokens]],
        frequencies: DocumentFrequencies | None = None,
        end_token: Hashable | None = None,
    ):
        self.end_token = end_token
        self.frequencies = frequencies or DocumentFrequencies.from_references(references, end_token)
        if end_token is not None:
            references = [[[*caption, end_token] for caption in group] for group in references]
        captions, images = flatten(references)
        self.lengths = captions.lengths  # (R,)
        self.num_references = np.bincount(images, minlength=len(references))  # (I,) per image
        self.orders = [self._index(captions, images, n) for n in range(1, MAX_ORDER + 1)]

    def _index(self, captions: HashedCaptions, images: np.ndarray, n: int) -> _References:
        counts = count_ngrams(captions, n)
        weights = counts.counts * self.frequencies.idf(counts.hashes, n)  # (G,)
        norms = _norms(weights, counts.rows, len(captions))
        index = NgramIndex(images[counts.rows], counts.hashes)
        return _References(index, weights[index.order], counts.rows[index.order], norms)

    def score(
        self,
        candidates: Sequence[Tokens],
        images: Sequence[int] | np.ndarray | None = None,
        finished: Sequence[bool] | None = None,
    ) -> np.ndarray:
        """Computes the score of each caption.

        Args:
            candidates: N captions in tokens, without the end token.
            images: (N,), index of the image whose references a caption is compared with; one
                caption per image, in order, by default.
            finished: (N,), whether a caption is finished; True by default. The end token is
                appended to finished captions only.

        Returns:
            (N,), each in 0..10; their mean is the score of the corpus.

        Raises:
            ValueError: the numbers of captions and images differ, or there is no such image.
            TypeError: captions are not tokenized.
        """
        images = self._check_images(candidates, images)
        if self.end_token is not None:
            finished = [True] * len(candidates) if finished is None else finished
            candidates = [
                [*caption, self.end_token] if is_finished else caption
                for caption, is_finished in zip(candidates, finished, strict=True)
            ]
        captions = HashedCaptions.from_tokens(candidates)
        total = np.zeros(len(captions))  # (N,)
        for n, references in enumerate(self.orders, 1):
            counts = count_ngrams(captions, n)
            weights = counts.counts * self.frequencies.idf(counts.hashes, n)  # (G,)
            norms = _norms(weights, counts.rows, len(captions))  # (N,)
            starts, ends = references.index.find(images[counts.rows], counts.hashes)  # (G,), (G,)
            # M matches: pairs of an n-gram of a caption and the same one of a reference.
            ours = np.repeat(np.arange(len(starts)), ends - starts)  # (M,)
            offsets = np.cumsum(ends - starts) - (ends - starts)  # (G,)
            theirs = np.arange(len(ours)) + np.repeat(starts - offsets, ends - starts)  # (M,)
            caption, reference = counts.rows[ours], references.rows[theirs]  # (M,), (M,)
            products = self._product(weights[ours], references.weights[theirs])  # (M,)
            sizes = norms[caption] * references.norms[reference]  # (M,)
            cosines = np.divide(products, sizes, out=np.zeros(len(sizes)), where=sizes > 0)
            cosines *= self._penalty(captions.lengths[caption] - self.lengths[reference])
            total += np.bincount(caption, cosines, len(captions))
        return SCALE / MAX_ORDER * total / self.num_references[images]

    def _check_images(
        self, candidates: Sequence[Tokens], images: Sequence[int] | np.ndarray | None
    ) -> np.ndarray:
        if images is None:
            images = np.arange(len(self.num_references))
        images = np.asarray(images, np.int64)
        if images.shape != (len(candidates),):
            raise ValueError(
                f"Expected an image for each of {len(candidates)} captions. Received: {images.size}"
            )
        if images.size and not 0 <= images.min() <= images.max() < len(self.num_references):
            raise ValueError(
                f"Expected images from 0 to {len(self.num_references) - 1}. "
                f"Received: {images.min()} to {images.max()}"
            )
        return images

    def _product(self, candidate: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Returns the contribution of common n-grams to the dot product."""
        return candidate * reference

    def _penalty(self, difference: np.ndarray) -> np.ndarray | float:
        """Returns the factor for a difference in length."""
        return 1.0


class CiderD(PlainCider):
    """CIDEr-D (Vedantam et al., 2015, section 5), the CIDEr of COCO's server and pycocoevalcap.

    Harder to game than `PlainCider`: the weight of an n-gram is clipped to that in the reference,
    min(g(c), g(s))·g(s), and a caption whose length differs by d words from the reference's gets
    exp(-d^2 / 2 sigma^2) of its score, sigma = 6.
    """

    SIGMA = 6.0

    def _product(self, candidate: np.ndarray, reference: np.ndarray) -> np.ndarray:
        return np.minimum(candidate, reference) * reference

    def _penalty(self, difference: np.ndarray) -> np.ndarray:
        return np.exp(-(difference**2) / (2 * self.SIGMA**2))


def _norms(weights: np.ndarray, rows: np.ndarray, size: int) -> np.ndarray:
    """Returns the norms of the captions' vectors, (N,)."""
    return np.sqrt(np.bincount(rows, weights**2, size))
