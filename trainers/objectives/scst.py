"""Self-critical sequence training: captions that the captioner samples, weighted by their reward.

Rennie et al., "Self-critical sequence training for image captioning", CVPR 2017. With image-major
batches it is cross-entropy on one's own samples, each token weighted by the advantage of its
caption; so the decoder, whatever its kind, is trained by the program that trains it on references.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from effcap.generation import CaptionProgram
from effcap.samplers import Greedy, Nucleus, Samples
from effcap.trainers.batching.packed import photos_of
from effcap.trainers.objectives.rewards import Reward
from effcap.trainers.options.scst import ScstOptions

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batching.packed import Batch, PackedBatches

WINDOW = 500  # photos whose captions tell whether they collapse
LENGTHS = 8  # row lengths at most, for backends that compile each anew


class CollapsedCaptions(ValueError):
    """The captioner says the same of everything."""


class SelfCritic:
    """Makes of a batch of photos with references one of samples, weighted by their advantage.

    Args:
        captioner: samples, and is then trained on it.
        batches: that the photos come from.
        reward: of a caption.
        options: how.

    Attributes:
        metrics: means since the epoch began: reward, baseline, length in tokens, distinct share of
            a photo's samples.
    """

    def __init__(
        self, captioner: Captioner, batches: PackedBatches, reward: Reward, options: ScstOptions
    ):
        if options.max_tokens > captioner.decoder.positions:
            raise ValueError(
                f"Expected max_tokens of at most {captioner.decoder.positions}, the positions of "
                f"the decoder. Received: max_tokens={options.max_tokens}"
            )
        self.captioner, self.batches, self.reward, self.options = (
            captioner,
            batches,
            reward,
            options,
        )
        sampler = Nucleus(
            p=options.p,
            temperature=options.temperature,
            captions=options.samples,
            max_tokens=options.max_tokens,
        )
        self.program = CaptionProgram(captioner, sampler)
        self.greedy = None
        if options.baseline == "greedy":
            self.greedy = CaptionProgram(captioner, Greedy(max_tokens=options.max_tokens))
        self.metrics = [
            keras.metrics.Mean(name) for name in ("reward", "baseline", "length", "distinct")
        ]
        self._recent: deque[str] = deque(maxlen=WINDOW)
        most = options.samples * (options.max_tokens + 1)
        self._rounding = -(-most // LENGTHS)

    def batch(self, batch: Batch, step: int) -> Batch:
        """The captioner's samples of a batch of photos, in the form of `PackedBatches`.

        Its weights are signed, and sum up to the loss as it is: (1 - cross_entropy) times the mean
        over all tokens of advantage times negative log-probability, plus cross_entropy times the
        mean negative log-probability of the references' tokens.

        Args:
            batch: photos with references.
            step: of the run; same step, same samples.

        Raises:
            CollapsedCaptions: when the captioner says the same of everything.
        """
        inputs, _, weights = batch
        real = weights.any(axis=1)  # (B,)
        photos = photos_of(inputs)
        self.program.seeds.state.assign(np.array([self.batches.seed, step], np.uint32))
        samples = self._run(self.program, photos)
        references = self.batches.texts(batch)
        texts, finished = self._texts(samples)
        rewards = self._rewards(texts, finished, references, real)  # (B,K)
        if self.greedy is None:
            others = rewards.sum(axis=1, keepdims=True) - rewards
            baseline = others / (self.options.samples - 1)  # (B,K)
        else:
            found, ended = self._texts(self._run(self.greedy, photos))
            baseline = self._rewards(found, ended, references, real)  # (B,1)
        self._note(rewards, baseline, samples, texts, real)
        return self._packed(photos, samples, finished, rewards - baseline, real, batch)

    def _run(self, program: CaptionProgram, photos: dict[str, Any]) -> Samples:
        return Samples(**program.predict_on_batch(photos))

    def _texts(self, samples: Samples) -> tuple[list[list[str]], np.ndarray]:
        """Captions as text, and which came to their end (B, K)."""
        decode = self.captioner.tokenizer.decode
        texts = [
            [decode(tokens[:length]) for tokens, length in zip(*photo, strict=True)]
            for photo in zip(samples.tokens, samples.lengths, strict=True)
        ]
        return texts, samples.lengths < samples.tokens.shape[-1]

    def _rewards(
        self,
        texts: Sequence[Sequence[str]],
        finished: np.ndarray,
        references: Sequence[Sequence[str]],
        real: np.ndarray,
    ) -> np.ndarray:
        """(B, K) rewards, 0 for rows that are not real."""
        rewards = np.zeros(finished.shape)  # (B,K)
        rows = np.flatnonzero(real)
        if len(rows):
            rewards[rows] = self.reward(
                [texts[row] for row in rows], finished[rows], [references[row] for row in rows]
            )
        return rewards

    def _note(
        self,
        rewards: np.ndarray,
        baseline: np.ndarray,
        samples: Samples,
        texts: Sequence[Sequence[str]],
        real: np.ndarray,
    ) -> None:
        """Keeps the means, and sees whether captions collapse."""
        if not real.any():
            return
        distinct = np.array([len(set(group)) / len(group) for group in texts])
        found = (rewards, baseline, samples.lengths, distinct)
        for metric, values in zip(self.metrics, found, strict=True):
            metric.update_state(float(values[real].mean()), float(real.sum()))
        self._recent += [texts[row][0] for row in np.flatnonzero(real)]
        share = len(set(self._recent)) / len(self._recent)
        if len(self._recent) == WINDOW and share < self.options.min_distinct:
            usual = max(set(self._recent), key=list(self._recent).count)
            raise CollapsedCaptions(
                f"Expected captions that differ from photo to photo: at least "
                f"{self.options.min_distinct:.0%} of them (min_distinct). Received: {share:.1%}, "
                f"most often {usual!r}. What was saved before is in place; try a lower learning "
                "rate, or cross_entropy=0.1"
            )

    def _packed(
        self,
        photos: dict[str, Any],
        samples: Samples,
        finished: np.ndarray,
        advantages: np.ndarray,
        real: np.ndarray,
        batch: Batch,
    ) -> Batch:
        rows = [
            [tokens[:length] for tokens, length in zip(*photo, strict=True)]
            for photo in zip(samples.tokens, samples.lengths, strict=True)
        ]
        longest = max(sum(len(caption) + 1 for caption in row) for row in rows)
        longest = -(-longest // self._rounding) * self._rounding
        tokens, targets, segments = self.batches.pack(rows, longest)  # (B,T)
        weights = np.zeros(tokens.shape, np.float32)  # (B,T)
        counted = np.zeros(tokens.shape, bool)  # (B,T)
        for row in np.flatnonzero(real):
            for k, caption in enumerate(rows[row]):
                here = np.flatnonzero(segments[row] == k + 1)
                here = here if finished[row, k] else here[: len(caption)]  # a cut one has no end
                weights[row, here], counted[row, here] = advantages[row, k], True
        mix = self.options.cross_entropy
        weights *= (1 - mix) / max(counted.sum(), 1)
        if not mix:
            return {**photos, "tokens": tokens, "segments": segments}, targets, weights
        inputs, references, real_tokens = batch
        behind = np.where(inputs["segments"] > 0, inputs["segments"] + self.options.samples, 0)
        joined = {
            "tokens": np.concatenate([tokens, inputs["tokens"]], axis=1),  # (B,T+T')
            "segments": np.concatenate([segments, behind], axis=1),  # (B,T+T')
        }
        share = mix * real_tokens / max(real_tokens.sum(), 1)  # (B,T')
        return (
            {**photos, **joined},
            np.concatenate([targets, references], axis=1),  # (B,T+T')
            np.concatenate([weights, share.astype(np.float32)], axis=1),  # (B,T+T')
        )
