"""Computes CIDEr on validation photos."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from effcap.generation import GenerationCache
from effcap.metrics import CiderD, distinct_fraction, tokenize
from effcap.samplers import Greedy
from effcap.trainers.batching.packed import encoder_inputs
from effcap.trainers.batching.prefetch import prefetch

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batching.packed import PackedBatches

MIN_NEW_TOKENS = 30  # captions of untrained models stop late


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

    def scores(self, set_status: Callable[[str], None] = lambda status: None) -> dict[str, float]:
        """Captions and scores the photos.

        Args:
            set_status: function that shows the progress.

        Returns:
            val_cider (CIDEr-D, see `CiderD`) and val_distinct, the fraction of distinct captions;
            nothing if there are no photos.
        """
        captions: list[list[str]] = []
        references: list[list[list[str]]] = []
        for batch in prefetch(self.batches, 0, len(self.batches)):
            inputs, _, weights = batch
            hypotheses = self.models.generate(
                encoder_inputs(inputs),
                self.tokenizer,
                self.sampler,
                len(weights),
                prefixes=self.batches.prefixes(batch),
            )
            texts = self.batches.texts(batch)
            for row in np.flatnonzero(weights.any(axis=1)):
                length = hypotheses.lengths[row, 0]
                text = self.tokenizer.decode_caption(hypotheses.tokens[row, 0, :length])
                captions.append(tokenize(text, self.tokenization))
                references.append([tokenize(text, self.tokenization) for text in texts[row]])
            set_status(f"captioning {len(captions)} of {self.num_photos}")
            if len(captions) >= self.num_photos:
                break
        if not captions:
            return {}
        cider = CiderD(references).score(captions).mean()
        return {"val_cider": float(cider), "val_distinct": distinct_fraction(captions)}
