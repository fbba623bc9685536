"""CIDEr and CIDEr-D: how much of what people say of a photo, and of no other, a caption says."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from effcap.metrics.frequencies import DocumentFrequencies
from effcap.metrics.ngrams import (
    ORDERS,
    Captions,
    Places,
    Tokens,
    count_ngrams,
    flatten,
)

SCALE = 10.0


class PlainCider:
    """CIDEr as Vedantam et al. 2015 define it in section 3: without the changes of CIDEr-D.

    (What COCO's server and pycocoevalcap call CIDEr is CIDEr-D: use `CiderD` to compare with
    published scores.)

    With g(c) the vector of caption c's n-grams, each counted times log(images / images whose
    references have it), CIDEr-n is the mean over references s of g(c)·g(s) / (|g(c)| |g(s)|), and
    CIDEr ten times the mean of CIDEr-1 to CIDEr-4. Words are not stemmed, as in the code that
    the paper's authors published.

    Reusable: references are counted once, so that `score` is fast enough to reward samples.

    Args:
        references: of each image, its captions in tokens: words, or token ids.
        frequencies: how many images have an n-gram; by default in these references, in which case
            there should be many images: with one alone every score is 0.
        end_token: a word put at the end of references and of finished candidates, so that captions
            that break off score less, as in self-critical training (Rennie et al. 2017). It has to
            be in `frequencies`, too.

    Raises:
        ValueError: without images, or for an image without references.
        TypeError: for references that are not tokenized.

    Example:
        >>> cider = CiderD([[tokenize(text) for text in texts] for texts in references])
        >>> rewards = cider.score(samples, images)
    """

    def __init__(
        self,
        references: Sequence[Sequence[Tokens]],
        frequencies: DocumentFrequencies | None = None,
        end_token: Hashable | None = None,
    ):
        self.end_token = end_token
        self.frequencies = frequencies or DocumentFrequencies.of(references, end_token)
        if end_token is not None:
            references = [[[*caption, end_token] for caption in group] for group in references]
        captions, images = flatten(references)
        self.lengths = captions.lengths  # (R,) of R references
        self.images = np.bincount(images, minlength=len(references))  # (I,) references of each
        self.orders = [self._index(captions, images, n) for n in range(1, ORDERS + 1)]

    def _index(self, captions: Captions, images: np.ndarray, n: int) -> tuple:
        """(places of n-grams by image; in their order the weight and the reference; norms)."""
        counts = count_ngrams(captions, n)
        weights = counts.counts * self.frequencies.idf(counts.hashes, n)
        norms = _norms(weights, counts.rows, len(captions))
        places = Places(images[counts.rows], counts.hashes)
        return places, weights[places.order], counts.rows[places.order], norms

    def score(
        self,
        candidates: Sequence[Tokens],
        images: Sequence[int] | np.ndarray | None = None,
        finished: Sequence[bool] | None = None,
    ) -> np.ndarray:
        """The score of each caption.

        Args:
            candidates: N captions in tokens, without the end token.
            images: (N,) which image's references each is compared with, by its place; by default
                one caption per image, in order.
            finished: (N,) whether a caption came to its end; by default all did. Those that did
                not get no end token.

        Returns:
            (N,), each of 0 to 10; their mean is the score of the corpus.

        Raises:
            ValueError: when numbers do not match, or there is no such image.
            TypeError: for captions that are not tokenized.
        """
        images = self._checked(candidates, images)
        if self.end_token is not None:
            ends = [True] * len(candidates) if finished is None else finished
            candidates = [
                [*caption, self.end_token] if end else caption
                for caption, end in zip(candidates, ends, strict=True)
            ]
        captions = Captions.of(candidates)
        total = np.zeros(len(captions))
        for n, (places, weights, references, norms) in enumerate(self.orders, 1):
            counts = count_ngrams(captions, n)
            mine = counts.counts * self.frequencies.idf(counts.hashes, n)  # (G,)
            my_norms = _norms(mine, counts.rows, len(captions))
            starts, ends = places.find(images[counts.rows], counts.hashes)
            here = np.repeat(np.arange(len(starts)), ends - starts)  # (M,) of M matches
            before = np.cumsum(ends - starts) - (ends - starts)
            there = np.arange(len(here)) + np.repeat(starts - before, ends - starts)  # (M,)
            caption, reference = counts.rows[here], references[there]
            products = self._product(mine[here], weights[there])
            sizes = my_norms[caption] * norms[reference]
            cosines = np.divide(products, sizes, out=np.zeros(len(sizes)), where=sizes > 0)
            cosines *= self._penalty(captions.lengths[caption] - self.lengths[reference])
            total += np.bincount(caption, cosines, len(captions))
        return SCALE / ORDERS * total / self.images[images]

    def _checked(self, candidates: Sequence[Tokens], images) -> np.ndarray:
        if images is None:
            images = np.arange(len(self.images))
        images = np.asarray(images, np.int64)
        if images.shape != (len(candidates),):
            raise ValueError(
                f"Expected an image for each of {len(candidates)} captions. Received: {images.size}"
            )
        if images.size and not 0 <= images.min() <= images.max() < len(self.images):
            raise ValueError(
                f"Expected images from 0 to {len(self.images) - 1}. "
                f"Received: {images.min()} to {images.max()}"
            )
        return images

    def _product(self, candidate: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """What an n-gram that both have adds to the product of their vectors."""
        return candidate * reference

    def _penalty(self, difference: np.ndarray) -> np.ndarray | float:
        """The factor for a difference in length."""
        return 1.0


class CiderD(PlainCider):
    """CIDEr-D (Vedantam et al. 2015, section 5), the CIDEr of COCO's server and pycocoevalcap.

    It is harder to game than `PlainCider`: an n-gram counts at most as much as in the reference,
    min(g(c), g(s))·g(s), and a caption whose length differs by d words from the reference's gets
    exp(-d^2 / 2 sigma^2) of its score, sigma = 6.
    """

    SIGMA = 6.0

    def _product(self, candidate: np.ndarray, reference: np.ndarray) -> np.ndarray:
        return np.minimum(candidate, reference) * reference

    def _penalty(self, difference: np.ndarray) -> np.ndarray:
        return np.exp(-(difference**2) / (2 * self.SIGMA**2))


def _norms(weights: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """(N,) lengths of the captions' vectors."""
    return np.sqrt(np.bincount(rows, weights**2, count))
