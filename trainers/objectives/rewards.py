"""What a sampled caption is worth: CIDEr-D against what people said, and what may be added."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from effcap.metrics import CiderD, DocumentFrequencies, bleu, tokenize
from effcap.trainers.options.scst import RewardOptions

MOST_PHOTOS = 200_000  # whose references are counted: more change the rewards little
END = "end of text"  # no caption has such a word: there are blanks in it


class Reward:
    """Rewards captions with CIDEr-D (Vedantam et al. 2015), the end of a caption being a word.

    Without the end as a word, captions that break off ("a dog in the", "a man on a") cost nothing
    and are what training ends up with; see the authors' code of Rennie et al. 2017.

    Args:
        frequencies: how many photos' references have an n-gram, with `END`; see `count`.
        options: what else counts.
    """

    def __init__(self, frequencies: DocumentFrequencies, options: RewardOptions | None = None):
        self.frequencies, self.options = frequencies, options or RewardOptions()

    def __call__(
        self,
        captions: Sequence[Sequence[str]],
        finished: np.ndarray,
        references: Sequence[Sequence[str]],
    ) -> np.ndarray:
        """The reward of each caption.

        Args:
            captions: of each of B photos, K captions.
            finished: (B, K) whether a caption came to its end, or was cut.
            references: of each photo, what people said of it.

        Returns:
            (B, K); CIDEr-D is of 0 to 10.
        """
        words = [[tokenize(text) for text in group] for group in captions]
        targets = [[tokenize(text) for text in group] for group in references]
        flat = [caption for group in words for caption in group]  # B*K
        photos = np.repeat(np.arange(len(words)), [len(group) for group in words])  # (B*K,)
        cider = CiderD(targets, self.frequencies, END)
        found = cider.score(flat, photos, np.ravel(finished))  # (B*K,)
        if self.options.bleu:
            each = [bleu([text], [targets[i]])[-1] for text, i in zip(flat, photos, strict=True)]
            found = found + self.options.bleu * np.array(each)
        if self.options.length:
            usual = np.array([np.mean([len(text) for text in group]) for group in targets])  # (B,)
            found = found - self.options.length * np.abs(list(map(len, flat)) - usual[photos])
        return found.reshape(len(words), -1)  # (B,K)

    @staticmethod
    def count(references: Iterable[Sequence[str]], file: Path | None = None) -> DocumentFrequencies:
        """In how many photos' references each n-gram is, from `file` where it is there.

        Args:
            references: of each photo, what people said of it; the first 200,000 count.
            file: an .npz that keeps them. None for no file.

        Raises:
            ValueError: for a damaged file.
        """
        references = islice(references, MOST_PHOTOS)
        if file is not None and file.is_file():
            return DocumentFrequencies.load(file)
        tokens = [[tokenize(text) for text in group] for group in references]
        counted = DocumentFrequencies.of(tokens, END)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            new = file.with_suffix(".new.npz")
            counted.save(new)
            new.replace(file)
        return counted
