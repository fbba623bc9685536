"""Self-critical sequence training (SCST): rewards of sampled captions.

Rennie et al., "Self-critical sequence training for image captioning", CVPR 2017. With image-major
batches, it is cross-entropy on the captioner's own samples, each token weighted by the advantage of
its caption, so every decoder trains with the same compiled step as on references.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from effcap.generation import GenerationCache
from effcap.generation_call import check_sampler
from effcap.losses import ZERO_ADVANTAGE, AdvantageLoss
from effcap.samplers import Greedy, Nucleus, Sampler
from effcap.trainers.batching.packed import encoder_inputs
from effcap.trainers.batching.prefetch import prefetch
from effcap.trainers.objectives.base import Objective
from effcap.trainers.objectives.rewards import Reward, count_references
from effcap.trainers.options.scst import ScstOptions

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batching.packed import Batch, PackedBatches
    from effcap.trainers.data.dataset import CaptionDataset
    from effcap.trainers.options.run import RunOptions

WINDOW = 500  # photos whose captions are checked for a collapse
MAX_ROW_LENGTHS = 8  # different row lengths; some backends compile each
METRICS = ("reward", "baseline", "length", "distinct")


class CollapsedCaptions(ValueError):
    """The captioner generates the same caption for almost all photos."""


class Samples(NamedTuple):
    """Generated captions of a batch.

    Attributes:
        tokens: tokens of K captions of each of B rows, without start token, prefix and end token.
        texts: the same captions as text.
        lengths: (B, K) number of tokens.
        finished: (B, K) bool, False for a caption that was cut at `max_new_tokens`.
    """

    tokens: list[list[np.ndarray]]
    texts: list[list[str]]
    lengths: np.ndarray
    finished: np.ndarray


class Scst(Objective):
    """Expected reward of sampled captions, maximized by policy gradient with a baseline.

    The loss of a step is (1 - cross_entropy_weight) times the mean over all sampled tokens of
    advantage times negative log-probability, plus cross_entropy_weight times the mean negative
    log-probability of the references' tokens. The advantage is the reward minus the baseline.

    Args:
        reward: function of captions, finished and references, such as `Reward`.
        options: options of sampling and rewards.
        seed: seed of the samples.
    """

    name = "scst"

    def __init__(self, reward: Reward, options: ScstOptions | None = None, seed: int = 0) -> None:
        self.reward, self.options, self.seed = reward, options or ScstOptions(), seed
        self._recent: deque[str] = deque(maxlen=WINDOW)

    @classmethod
    def from_options(cls, options: RunOptions, dataset: CaptionDataset) -> Scst:
        """Returns the objective with rewards based on the references of the dataset."""
        scst, training = options.scst, options.training_options
        file, tokenization = options.folder / "frequencies.npz", training.tokenization
        frequencies = count_references(dataset.references(), file, tokenization)
        reward = Reward(frequencies, scst.bleu_weight, scst.length_weight, tokenization)
        return cls(reward, scst, training.seed)

    def build(self, captioner: Captioner) -> None:
        """Creates the samplers, and metrics of the epoch's rewards, lengths and diversity.

        Raises:
            ValueError: the captioner has no tokenizer, or `max_new_tokens` exceeds the decoder's
                length.
        """
        if captioner.tokenizer is None:
            raise ValueError("Expected a captioner with a tokenizer. Received: tokenizer=None")
        self.tokenizer = captioner.tokenizer
        self._models = GenerationCache(captioner.encoder, captioner.decoder)
        self._nucleus = Nucleus(
            top_p=self.options.top_p,
            temperature=self.options.temperature,
            num_captions=self.options.num_samples,
            # An empty sample teaches the captioner not to generate it.
            min_new_tokens=0,
            max_new_tokens=self.options.max_new_tokens,
        )
        check_sampler(self._nucleus, captioner.decoder, self.tokenizer)
        self._greedy = Greedy(max_new_tokens=self.options.max_new_tokens)
        self.loss = AdvantageLoss()
        self.metrics = [keras.metrics.Mean(name) for name in METRICS]

    def identity(self) -> dict[str, Any]:
        """Returns the options of sampling and rewards."""
        return {"scst": vars(self.options)}

    def train_epoch(
        self,
        captioner: Captioner,
        batches: PackedBatches,
        indices: range,
        epoch: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> dict[str, float]:
        """Trains on samples of the current weights.

        `fit` cannot be used, because it prepares batches early, and on JAX it updates the
        captioner's weights only at the end of an epoch.

        Returns:
            loss, reward, baseline, length and distinct.
        """
        for metric in (*captioner.metrics, *self.metrics):
            metric.reset_state()
        callback_list = keras.callbacks.CallbackList(list(callbacks), model=captioner)
        callback_list.on_epoch_begin(epoch)
        scores: dict[str, float] = {}
        with closing(prefetch(batches, indices.start, indices.stop)) as stream:
            for number, batch in enumerate(stream):
                callback_list.on_train_batch_begin(number)
                step = epoch * len(batches) + indices[number]
                samples = self.sample_batch(batches, batch, step)
                logs = captioner.train_on_batch(*samples, return_dict=True)
                scores = {name: float(value) for name, value in logs.items()}
                scores |= {metric.name: float(metric.result()) for metric in self.metrics}
                callback_list.on_train_batch_end(number, scores)
        callback_list.on_epoch_end(epoch, scores)
        return scores

    def sample_batch(self, batches: PackedBatches, batch: Batch, step: int) -> Batch:
        """Replaces the references of a batch by samples, weighted by their advantages.

        The weights are those of an `AdvantageLoss`.

        Args:
            batches: batches that `batch` is from.
            batch: photos with references.
            step: training step, which determines the samples.

        Returns:
            A batch in the format of `PackedBatches`.

        Raises:
            CollapsedCaptions: the captions of recent photos are almost all the same.
        """
        inputs, _, weights = batch
        is_real = np.any(weights, axis=1)  # (B,) False for rows that pad the last batch
        photos, references = encoder_inputs(inputs), batches.texts(batch)
        prefixes = batches.prefixes(batch)
        nucleus = replace(self._nucleus, seed=(self.seed << 32) + step)
        samples = self._generate(photos, prefixes, nucleus)
        rewards = self._rewards(samples, references, is_real)  # (B,K)
        if self.options.baseline == "others":
            others = rewards.sum(axis=1, keepdims=True) - rewards  # (B,K)
            baseline = others / (self.options.num_samples - 1)  # (B,K)
        else:
            greedy = self._generate(photos, prefixes, self._greedy)
            baseline = self._rewards(greedy, references, is_real)  # (B,1)
        if is_real.any():
            self._update_metrics(samples, rewards, baseline, is_real)
            self._check_collapse([samples.texts[row][0] for row in np.flatnonzero(is_real)])
        return self._pack(batches, batch, samples, rewards - baseline)

    def _generate(
        self, photos: dict[str, Any], prefixes: Sequence[Sequence[int]], sampler: Sampler
    ) -> Samples:
        hypotheses = self._models.generate(
            photos, self.tokenizer, sampler, len(prefixes), prefixes=prefixes
        )
        tokens = [
            [row[:length] for row, length in zip(*rows, strict=True)]
            for rows in zip(hypotheses.tokens, hypotheses.lengths, strict=True)
        ]
        texts = [[self.tokenizer.decode_caption(row) for row in rows] for rows in tokens]
        finished = hypotheses.lengths < hypotheses.tokens.shape[-1]
        return Samples(tokens, texts, hypotheses.lengths, finished)

    def _rewards(
        self, samples: Samples, references: Sequence[Sequence[str]], is_real: np.ndarray
    ) -> np.ndarray:
        """Returns rewards (B, K); 0 for rows that pad the batch."""
        rewards = np.zeros(samples.lengths.shape)  # (B,K)
        rows = np.flatnonzero(is_real).tolist()
        if rows:
            rewards[rows] = self.reward(
                [samples.texts[row] for row in rows],
                samples.finished[rows],
                [references[row] for row in rows],
            )
        return rewards

    def _update_metrics(
        self, samples: Samples, rewards: np.ndarray, baseline: np.ndarray, is_real: np.ndarray
    ) -> None:
        distinct = np.array([len(set(texts)) / len(texts) for texts in samples.texts])  # (B,)
        values = (rewards, baseline, samples.lengths, distinct)
        for metric, value in zip(self.metrics, values, strict=True):
            metric.update_state(float(value[is_real].mean()), float(is_real.sum()))

    def _check_collapse(self, texts: Sequence[str]) -> None:
        self._recent += texts
        fraction = len(set(self._recent)) / len(self._recent)
        if len(self._recent) == WINDOW and fraction < self.options.min_distinct:
            [(text, _)] = Counter(self._recent).most_common(1)
            raise CollapsedCaptions(
                f"Expected at least {self.options.min_distinct:.0%} distinct captions among "
                f"{WINDOW} photos (min_distinct). Received: {fraction:.1%}, most often {text!r}. "
                "Saved presets are intact. Try a lower learning rate, or cross_entropy_weight=0.1"
            )

    def _pack(
        self, batches: PackedBatches, batch: Batch, samples: Samples, advantages: np.ndarray
    ) -> Batch:
        """Packs samples with weights from advantages (B, K); see `sample_batch`."""
        inputs, reference_targets, reference_weights = batch
        prefixes = batches.prefixes(batch)
        length = self._row_length(samples, max(map(len, prefixes)))
        tokens, targets, segments, generated = batches.pack(
            samples.tokens, prefixes, length
        )  # (B,T)
        weights = np.zeros(tokens.shape, np.float32)  # (B,T)
        for row in np.flatnonzero(reference_weights.any(axis=1)):
            for k, caption in enumerate(samples.tokens[row]):
                positions = np.flatnonzero((segments[row] == k + 1) & (generated[row] > 0))
                if not samples.finished[row, k]:
                    positions = positions[: len(caption)]  # without the end token
                weights[row, positions] = advantages[row, k] or ZERO_ADVANTAGE
        photos = encoder_inputs(inputs)
        mix = self.options.cross_entropy_weight
        if not mix:
            return {**photos, "tokens": tokens, "segments": segments}, targets, weights
        # The references follow the samples in each row, as further segments.
        reference_segments = inputs["segments"] + self.options.num_samples  # (B,T')
        reference_segments = np.where(inputs["segments"] > 0, reference_segments, 0)  # (B,T')
        packed = {
            "tokens": np.concatenate([tokens, inputs["tokens"]], axis=1),  # (B,T+T')
            "segments": np.concatenate([segments, reference_segments], axis=1),  # (B,T+T')
        }
        targets = np.concatenate([targets, reference_targets], axis=1)  # (B,T+T')
        # The mean over all tokens becomes the mixture of the two means.
        num_samples, num_references = np.count_nonzero(weights), reference_weights.sum()
        num_tokens = num_samples + num_references
        weights *= (1 - mix) * num_tokens / max(num_samples, 1)
        reference_weights = reference_weights * (mix * num_tokens / max(num_references, 1))
        weights = np.concatenate([weights, reference_weights], axis=1, dtype=np.float32)
        return {**photos, **packed}, targets, weights  # (B,T+T')

    def _row_length(self, samples: Samples, prefix_length: int) -> int:
        """Returns the length of the longest row, rounded up to one of a few lengths."""
        max_length = self.options.num_samples * (self.options.max_new_tokens + 1)
        multiple = -(-max_length // MAX_ROW_LENGTHS)
        longest = int((samples.lengths + prefix_length + 1).sum(axis=1).max())
        return -(-longest // multiple) * multiple
