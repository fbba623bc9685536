"""Computes CIDEr on validation photos."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from effcap.generation import GenerationCache
from effcap.metrics import CiderD, distinct_fraction, tokenize
from effcap.samplers import Greedy
from effcap.trainers.batching.packed import Source, encoder_inputs
from effcap.trainers.batching.prefetch import prefetch

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batching.packed import PackedBatches

MIN_NEW_TOKENS = 30  # captions of untrained models stop late
MAX_WORST = 8  # captions with the lowest CIDEr that are kept


class ScoredCaption(NamedTuple):
    """A generated caption of a validation photo.

    Attributes:
        source: the photo.
        text: the caption.
        references: captions of the photo.
        cider: CIDEr-D of the caption.
    """

    source: Source
    text: str
    references: list[str]
    cider: float


class Validation(NamedTuple):
    """Result of a validation.

    Attributes:
        scores: val_cider (CIDEr-D, see `CiderD`) and val_distinct, the fraction of distinct
            captions; empty if there are no photos.
        worst: the captions with the lowest CIDEr-D, at most a third of all, the worst first.
        num_photos: number of captioned photos.
    """

    scores: dict[str, float]
    worst: list[ScoredCaption]
    num_photos: int


class CiderValidator:
    """Scores the greedy captions of validation photos, without the prefixes that they continue.

    Args:
        captioner: captioner to validate.
        batches: batches of photos with references.
        num_photos: maximum number of photos to caption, from the first on.
        tokenization: words that CIDEr counts; see `tokenize`.
    """

    def __init__(
        self,
        captioner: Captioner,
        batches: PackedBatches,
        num_photos: int,
        tokenization: str = "ptb",
    ) -> None:
        self.tokenization = tokenization
        self.batches, self.tokenizer = batches, batches.tokenizer
        self.num_photos = min(num_photos, batches.num_images)
        longest = captioner.decoder.max_text_length - batches.max_prefix_length
        length = max(MIN_NEW_TOKENS, batches.caption_length + 1)
        self.sampler = Greedy(max_new_tokens=min(length, longest))
        self.models = GenerationCache(captioner.encoder, captioner.decoder)

    def validate(self, set_status: Callable[[str], None] = lambda status: None) -> Validation:
        """Captions and scores the photos.

        Args:
            set_status: function that shows the progress.
        """
        sources: list[Source] = []
        captions: list[str] = []
        references: list[list[str]] = []
        for index, batch in enumerate(prefetch(self.batches, 0, len(self.batches))):
            inputs, _, weights = batch
            hypotheses = self.models.generate(
                encoder_inputs(inputs),
                self.tokenizer,
                self.sampler,
                len(weights),
                prefixes=self.batches.prefixes(batch),
            )
            texts = self.batches.texts(batch)
            for row in np.flatnonzero(weights.any(axis=1)).tolist():
                length = hypotheses.lengths[row, 0]
                tokens = hypotheses.tokens[row, 0, :length]
                sources.append(self.batches.source(index, row))
                captions.append(self.tokenizer.decode_caption(tokens))
                references.append(texts[row])
            set_status(f"captioning {len(captions)} of {self.num_photos}")
            if len(captions) >= self.num_photos:
                break
        if not captions:
            return Validation({}, [], 0)
        words = [tokenize(text, self.tokenization) for text in captions]
        reference_words = [
            [tokenize(text, self.tokenization) for text in texts] for texts in references
        ]
        cider = CiderD(reference_words).score(words)  # (N,)
        worst = np.argsort(cider, kind="stable")[: min(MAX_WORST, max(1, len(captions) // 3))]
        return Validation(
            {"val_cider": float(cider.mean()), "val_distinct": distinct_fraction(words)},
            [
                ScoredCaption(
                    sources[i],
                    captions[i].strip(),  # of the space after a prefix
                    [text.strip() for text in references[i]],
                    float(cider[i]),
                )
                for i in worst.tolist()
            ],
            len(captions),
        )
