"""Batches into a trained captioner, whatever the data came from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from effcap.loss import CaptionLoss
from effcap.trainers.callbacks import EpochStart, Presets, ProgressBar, StopAfter
from effcap.trainers.options import TrainingOptions
from effcap.trainers.tensorboard import TensorBoard

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.photos import Photo
    from effcap.trainers.batches import CaptionBatches

NO_DECAY = ("bias", "gamma", "beta", "wte", "wpe", "special_wte", "position_embedding")
EMA_SPAN = 0.2  # of all steps, at most: 1 / (1 - momentum) of the moving average


def make_optimizer(options: TrainingOptions, steps: int) -> keras.optimizers.Optimizer:
    """AdamW with warmup, cosine decay, clipping, and the moving average of weights if asked for.

    The learning rate rises in a straight line, reaches `options.learning_rate` after
    `int(options.warmup * steps)` steps, and falls as a cosine to 0 after step `steps`.
    """
    warmup = int(options.warmup * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        # Not from 0: the first step would be for nothing.
        initial_learning_rate=options.learning_rate / (warmup + 1),
        decay_steps=steps - warmup,
        warmup_target=options.learning_rate,
        warmup_steps=warmup,
    )
    ema = min(options.ema, 1 - 1 / (EMA_SPAN * steps))
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=options.weight_decay,
        beta_2=0.98,
        global_clipnorm=options.clip_norm or None,
        use_ema=ema > 0,
        ema_momentum=max(ema, 0.0),
    )
    optimizer.exclude_from_weight_decay(var_names=list(NO_DECAY))
    return optimizer


def train(
    captioner: Captioner,
    training: CaptionBatches,
    validation: CaptionBatches | None,
    out: Path,
    options: TrainingOptions,
    record: Mapping[str, Any] | None = None,
    samples: Sequence[Photo] = (),
) -> keras.callbacks.History:
    """Trains with cross-entropy and keeps what comes of it in the run folder `out`.

    Args:
        captioner: what to train.
        training, validation: batches; without validation data the best preset is the last one.
        out: run folder: `run.json`, `last/` and `best/` (presets), `tensorboard/`, `log.csv`.
        options: how to train.
        record: how the run came about, for run.json and the presets' training.json.
        samples: photos whose captions TensorBoard shows after each epoch.

    Returns:
        Keras's history: loss, cross_entropy, val_loss, val_cross_entropy per epoch.

    Raises:
        UnreadablePhoto: for a photo that has become unreadable meanwhile.
        ValueError: when the loss is no number any more.
    """
    steps = options.steps or options.epochs * len(training)
    epochs = math.ceil(steps / len(training))
    keras.utils.set_random_seed(options.seed)
    captioner.compile(
        make_optimizer(options, steps),
        CaptionLoss(options.label_smoothing),
        # XLA would compile the step again for every row length.
        jit_compile=keras.backend.backend() == "jax",
    )
    record = dict(record or {})
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    board = TensorBoard(out / "tensorboard", samples)
    progress = ProgressBar(training, steps)
    callbacks: list[keras.callbacks.Callback] = [EpochStart(training), StopAfter(steps)]
    if captioner.optimizer.use_ema:
        callbacks.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    # Those after the swap see the averaged weights at the end of an epoch.
    callbacks += [board, Presets(out, record), keras.callbacks.CSVLogger(out / "log.csv"), progress]
    with closing(board), closing(progress):
        try:
            return captioner.fit(
                training,
                validation_data=validation,
                epochs=epochs,
                callbacks=callbacks,
                shuffle=False,  # the batches are in random order already, one that can be repeated
                verbose=0,
            )
        except Exception:
            failure = training.failure or (validation and validation.failure)
            if failure:
                raise failure from None
            raise
