"""Batches into a trained captioner, whatever the data came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from effcap.losses import CaptionLoss
from effcap.metrics.token_cross_entropy import TokenCrossEntropy
from effcap.trainers.distributed.processes import check_same, hosts, leads
from effcap.trainers.distributed.replicas import (
    JointCaptionLoss,
    build_losses,
    check_accumulation,
    scope_of,
)
from effcap.trainers.engine.checkpoint import Checkpoint, Position
from effcap.trainers.engine.loop import Loop
from effcap.trainers.engine.optimizer import make_optimizer
from effcap.trainers.engine.run_folder import RunFolder
from effcap.trainers.engine.scst_loop import ScstLoop
from effcap.trainers.engine.validation import Scorer
from effcap.trainers.options.training import TrainingOptions

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.trainers.batching.packed import PackedBatches, Sample
    from effcap.trainers.objectives.scst import SelfCritic


def train(
    captioner: Captioner,
    training: PackedBatches,
    validation: PackedBatches | None,
    out: Path,
    options: TrainingOptions,
    record: Mapping[str, Any] | None = None,
    samples: Sequence[Sample] = (),
    *,
    critic: SelfCritic | None = None,
    resume: bool = False,
    checkpoint_minutes: float = 10.0,
    checkpoint_steps: int | None = None,
) -> list[dict[str, float]]:
    """Trains and keeps what comes of it in the run folder `out`.

    A run that was stopped, however and wherever, goes on from its last checkpoint and ends with the
    weights that it would have ended with; on a CPU to the bit.

    Args:
        captioner: what to train.
        training, validation: batches; without validation data the best preset is the last one.
        out: run folder, see `effcap.trainers.engine.run_folder`.
        options: how to train.
        record: how the run came about, for run.json and the presets' training.json.
        samples: whose captions TensorBoard shows after each epoch.
        critic: rewards the captioner's own captions, in place of cross-entropy.
        resume: go on from the checkpoint in `out`, where there is one.
        checkpoint_minutes: between two checkpoints; there is one after each epoch besides.
        checkpoint_steps: between two checkpoints, in place of the minutes.

    Returns:
        The scores of each epoch: loss, cross_entropy, val_loss, val_cross_entropy, val_cider,
        val_distinct; with a critic loss, reward, baseline, length, distinct, val_cider,
        val_distinct. The best has the most val_cider, or without it the least val_cross_entropy.

    Raises:
        UnreadablePhoto: for a photo that has become unreadable meanwhile.
        ValueError: when the loss is no number any more, or the checkpoint is of another run.
        KeyboardInterrupt: when asked to stop, after a checkpoint.
    """
    steps = options.steps or options.epochs * len(training)
    keras.utils.set_random_seed(options.seed)
    check_accumulation(captioner, options.gradient_accumulation)
    with scope_of(captioner):
        # A critic's weights sum up to the loss, and some of them are below 0.
        loss = CaptionLoss(reduction="sum") if critic else JointCaptionLoss(options.label_smoothing)
        metrics = [] if critic else [TokenCrossEntropy()]
        captioner.compile(
            make_optimizer(options, steps, captioner),
            loss,
            metrics,
            # XLA would compile the step again for every row length.
            jit_compile=keras.backend.backend() == "jax",
        )
        # It has its state before the first step.
        captioner.optimizer.build(captioner.trainable_variables)
        build_losses(captioner, training)
    identity = run_identity(captioner, training, validation, options)
    if critic:
        metrics = [*critic.metrics]
        identity |= dict(_flat({"scst": asdict(critic.options)}))
    folder = RunFolder(out, record or {}, writes=leads())
    checkpoint = Checkpoint(folder.checkpoint, identity, metrics, writes=leads())
    position = (checkpoint.position() if resume else None) or Position()
    check_same(options_or_data=identity, checkpoint=position.steps)
    folder.begin(position)
    scorer = None
    if validation is not None and options.cider_photos and hosts() == 1:
        scorer = Scorer(captioner, validation, options.cider_photos)
    parts = (captioner, training, validation, folder, checkpoint, position, samples, scorer)
    loop = ScstLoop(*parts, critic=critic) if critic else Loop(*parts)
    loop.run(steps, options.patience, checkpoint_minutes, checkpoint_steps)
    return position.history


def run_identity(
    captioner: Captioner,
    training: PackedBatches,
    validation: PackedBatches | None,
    options: TrainingOptions,
) -> dict[str, Any]:
    """All that a run must have in common with its checkpoint to go on from it."""
    hparams = {**captioner.hparams(), "training": vars(options)}
    identity: dict[str, Any] = dict(_flat(hparams))
    identity["backend"] = keras.backend.backend()
    identity["tokenizer"] = getattr(captioner.tokenizer, "fingerprint", None)
    identity["training data"] = training.fingerprint
    identity["validation data"] = validation and validation.fingerprint
    return identity


def _flat(values: Mapping[str, Any], before: str = ""):
    for name, value in values.items():
        if isinstance(value, Mapping):
            is_network = "class_name" in value  # whose layers' names may differ; shapes tell
            yield from () if is_network else _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", list(value) if isinstance(value, tuple) else value
