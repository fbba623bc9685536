"""Rewards of sampled captions: CIDEr-D against the references, with optional BLEU and length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from effcap.metrics import CiderD, DocumentFrequencies, bleu, tokenize

MAX_PHOTOS = 200_000  # photos whose references are counted; more hardly change the rewards
END = "end of text"  # tokenized captions contain no such word, because it has spaces


class Reward:
    """Rewards captions with CIDEr-D (Vedantam et al., 2015), with the end of a caption as a word.

    Without it, training converges to incomplete captions ("a dog in the", "a man on a"). The
    code of Rennie et al. (2017) does the same.

    Args:
        frequencies: document frequencies of n-grams that include `END`; see `count_references`.
        bleu_weight: weight of BLEU-4, added to CIDEr-D.
        length_weight: penalty per word of difference from the mean length of the references.
        tokenization: words of the captions; see `tokenize`.
    """

    def __init__(
        self,
        frequencies: DocumentFrequencies,
        bleu_weight: float = 0.0,
        length_weight: float = 0.0,
        tokenization: str = "ptb",
    ) -> None:
        self.frequencies, self.tokenization = frequencies, tokenization
        self.bleu_weight, self.length_weight = bleu_weight, length_weight

    def __call__(
        self,
        captions: Sequence[Sequence[str]],
        finished: np.ndarray,
        references: Sequence[Sequence[str]],
    ) -> np.ndarray:
        """Returns the reward of each caption.

        Args:
            captions: K captions of each of B photos.
            finished: (B, K) bool, False for a truncated caption, which gets no end.
            references: reference captions of each photo.

        Returns:
            (B, K) rewards; CIDEr-D is between 0 and 10.
        """
        rule = self.tokenization
        candidates = [tokenize(text, rule) for group in captions for text in group]  # B*K
        targets = [[tokenize(text, rule) for text in group] for group in references]  # B
        photos = np.repeat(np.arange(len(captions)), [len(group) for group in captions])  # (B*K,)
        cider = CiderD(targets, self.frequencies, END)
        rewards = cider.score(candidates, photos, np.ravel(finished).tolist())  # (B*K,)
        if self.bleu_weight:
            scores = [
                bleu([words], [targets[photo]])[-1]
                for words, photo in zip(candidates, photos, strict=True)
            ]
            rewards = rewards + self.bleu_weight * np.array(scores)
        if self.length_weight:
            lengths = np.array([len(words) for words in candidates])  # (B*K,)
            mean_lengths = np.array([np.mean([len(text) for text in group]) for group in targets])
            rewards = rewards - self.length_weight * np.abs(lengths - mean_lengths[photos])
        return rewards.reshape(len(captions), -1)  # (B,K)


def count_references(
    references: Iterable[Sequence[str]], file: Path | None = None, tokenization: str = "ptb"
) -> DocumentFrequencies:
    """Counts how many photos' references contain each n-gram, including `END`.

    Args:
        references: reference captions of each photo; the first 200,000 photos count.
        file: .npz file to read the counts from if it exists, and to write them to otherwise. None
            for no file.
        tokenization: words of the references; see `tokenize`.

    Returns:
        The document frequencies for `Reward`.

    Raises:
        ValueError: the file is damaged.
    """
    if file is not None and file.is_file():
        return DocumentFrequencies.load(file)
    counted = islice(references, MAX_PHOTOS)
    tokens = [[tokenize(text, tokenization) for text in group] for group in counted]
    frequencies = DocumentFrequencies.from_references(tokens, END)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new.npz")
        frequencies.save(new)
        new.replace(file)
    return frequencies
