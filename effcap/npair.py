"""N-pair loss of captions and prefixes (Sohn, 2016), as in OPG."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

from effcap.losses import CaptionLoss
from effcap.utils.replicas import gather_over_replicas, sum_over_replicas

NUM_TOKENS = 20  # of a caption, whose embeddings are averaged
REGULARIZATION = 0.02 * 0.25
MASKED_LOGIT = -1e30


class PrefixedLogits(NamedTuple):
    """Output of a captioner that trains with an `NPairLoss`.

    Attributes:
        logits: (B, T, V).
        prefix: (B, P, D) prefix embeddings.
        embeddings: (B, T, D) embeddings of the input tokens, without positions.
        segments: int (B, T), the number of each token's caption. None for one caption per row.
    """

    logits: Any
    prefix: Any
    embeddings: Any
    segments: Any = None


@keras.saving.register_keras_serializable("effcap")
class NPairLoss(CaptionLoss):
    """`CaptionLoss`, and in training `npair_weight` times the n-pair loss of captions and prefixes.

    The anchor of a caption is the mean of the embeddings of its first 20 tokens, and the positive
    of a photo is the mean of its prefix. The n-pair loss is the cross-entropy of anchor times
    positive over the photos of the batch, with the caption's own photo as the target, plus 0.005
    times the sum of the mean squared norms of anchors and of positives. A photo with several
    captions has several anchors and one positive; the mean is over captions. Captions and photos
    without a weight do not count. On several devices, the photos of the batch are those of all
    devices.

    Args:
        label_smoothing: as in `CaptionLoss`.
        npair_weight: weight of the n-pair loss. Default 0.1, as in OPG.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(
        self, label_smoothing: float = 0.0, npair_weight: float = 0.1, name: str = "npair_loss"
    ) -> None:
        super().__init__(label_smoothing, name)
        if npair_weight < 0:
            raise ValueError(
                f"Expected npair_weight of at least 0. Received: npair_weight={npair_weight}"
            )
        self.npair_weight = npair_weight

    def npair(self, outputs: PrefixedLogits, sample_weight: Any = None) -> Any:
        """Computes the n-pair loss of a batch, a scalar, without its weight.

        Args:
            outputs: output of the captioner.
            sample_weight: (B, T), not 0 at real tokens. Default 1 everywhere.
        """
        embeddings = ops.cast(outputs.embeddings, "float32")  # (B,T,D)
        segments = outputs.segments
        if segments is None:
            segments = ops.zeros_like(embeddings[..., 0], dtype="int32")  # (B,T)
        is_real = ops.ones_like(segments) if sample_weight is None else sample_weight  # (B,T)
        is_real = ops.not_equal(is_real, 0)  # (B,T)
        anchors, is_anchor = caption_anchors(embeddings, segments, is_real)  # (B,T,D), (B,T)
        positives = ops.mean(ops.cast(outputs.prefix, "float32"), axis=1)  # (B,D)
        return npair_loss(anchors, is_anchor, positives, ops.any(is_real, axis=1))

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration for serialization."""
        return {**super().get_config(), "npair_weight": self.npair_weight}


def caption_anchors(embeddings: Any, segments: Any, is_real: Any) -> tuple[Any, Any]:
    """Computes the mean embedding of each caption's first tokens, at its start token.

    Args:
        embeddings: (B, T, D) of the input tokens; a caption begins with a start token, which does
            not count.
        segments: int (B, T), the number of each token's caption.
        is_real: bool (B, T), false at padding.

    Returns:
        Anchors (B, T, D), and bool (B, T), true at the start tokens of captions that are not empty.
    """
    same = ops.equal(ops.expand_dims(segments, 2), ops.expand_dims(segments, 1))  # (B,T,T)
    same = ops.logical_and(same, ops.expand_dims(is_real, 1))  # (B,T,T)
    steps = ops.arange(embeddings.shape[1] or ops.shape(embeddings)[1])  # (T,)
    earlier = ops.logical_and(same, steps[:, None] > steps[None, :])  # (B,T,T)
    positions = ops.sum(ops.cast(earlier, "int32"), axis=2)  # (B,T) within the caption
    is_averaged = ops.logical_and(positions >= 1, positions <= NUM_TOKENS)  # (B,T)
    weights = ops.logical_and(same, ops.expand_dims(is_averaged, 1))  # (B,T,T)
    weights = ops.cast(weights, embeddings.dtype)  # (B,T,T)
    counts = ops.sum(weights, axis=2)  # (B,T)
    anchors = ops.matmul(weights, embeddings)  # (B,T,D)
    anchors = anchors / ops.expand_dims(ops.maximum(counts, 1), 2)  # (B,T,D)
    is_start = ops.logical_and(ops.equal(positions, 0), is_real)  # (B,T)
    return anchors, ops.logical_and(is_start, counts > 0)


def npair_loss(anchors: Any, is_anchor: Any, positives: Any, is_positive: Any) -> Any:
    """Computes the n-pair loss, a scalar; see `NPairLoss`.

    On several TensorFlow devices, each has the captions and photos of its rows, and computes its
    part of the mean over the captions of all.

    Args:
        anchors: (B, T, D), the captions of B photos.
        is_anchor: bool (B, T), true where there is a caption.
        positives: (B, D).
        is_positive: bool (B,), false for photos that pad the batch.
    """
    # A photo is compared to the N photos of all devices.
    weights = ops.cast(is_positive, positives.dtype)  # (B,)
    candidates, weights = gather_over_replicas([positives, weights])  # (N,D), (N,)
    logits = ops.matmul(anchors, ops.transpose(candidates))  # (B,T,N)
    logits = ops.where(weights > 0, logits, MASKED_LOGIT)  # (B,T,N)
    own = ops.sum(anchors * ops.expand_dims(positives, 1), axis=2)  # (B,T)
    losses = ops.logsumexp(logits, axis=2) - own  # (B,T)
    losses = losses + REGULARIZATION * ops.sum(ops.square(anchors), axis=2)  # (B,T)
    norms = ops.where(is_positive, ops.sum(ops.square(positives), axis=1), 0.0)  # (B,)
    counts = [ops.sum(ops.cast(mask, losses.dtype)) for mask in (is_anchor, is_positive)]
    num_anchors, num_positives = sum_over_replicas(counts)
    mean = ops.divide_no_nan(ops.sum(ops.where(is_anchor, losses, 0.0)), num_anchors)
    return mean + REGULARIZATION * ops.divide_no_nan(ops.sum(norms), num_positives)
