"""CIDEr of what a captioner writes for held-out photos, as training goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from effcap.generation import CaptionProgram
from effcap.metrics import CiderD, distinct_share, tokenize
from effcap.samplers import Greedy
from effcap.trainers.batching.packed import photos_of
from effcap.trainers.batching.prefetch import ahead

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batching.packed import PackedBatches

MAX_TOKENS = 30


class Scorer:
    """Scores the most likely captions of held-out photos.

    Args:
        captioner: that writes them.
        batches: of photos with references.
        photos: at most so many, the first.
    """

    def __init__(self, captioner: Captioner, batches: PackedBatches, photos: int):
        self.captioner, self.batches, self.photos = captioner, batches, photos
        sampler = Greedy(max_tokens=min(MAX_TOKENS, captioner.decoder.positions))
        self.program = CaptionProgram(captioner, sampler)

    def scores(self, tell: Callable[[str], None] = lambda status: None) -> dict[str, float]:
        """`val_cider` (CIDEr-D, see `CiderD`) and `val_distinct`, the share of distinct captions.

        Args:
            tell: is told how far it has come.
        """
        captions: list[list[str]] = []
        references: list[list[list[str]]] = []
        count = min(self.photos, self.batches.images)
        for batch in ahead(self.batches, 0, len(self.batches)):
            inputs, _, weights = batch
            found = self.program.predict_on_batch(photos_of(inputs))
            texts = self.batches.texts(batch)
            for row in np.flatnonzero(weights.any(axis=1)):
                length = found["lengths"][row, 0]
                text = self.captioner.tokenizer.decode(found["tokens"][row, 0, :length])
                captions.append(tokenize(text))
                references.append([tokenize(text) for text in texts[row]])
            tell(f"captioning {len(captions)} of {count}")
            if len(captions) >= count:
                break
        if not captions:
            return {}
        cider = CiderD(references).score(captions).mean()
        return {"val_cider": float(cider), "val_distinct": distinct_share(captions)}
