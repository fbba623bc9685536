"""The optimizer of a run: warmup and decay, and learning rates by component."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from effcap.layers.roles import no_decay_variables
from effcap.optimizers import CaptionOptimizer, LinearDecay
from effcap.trainers.options.training import LINEAR, TrainingOptions

if TYPE_CHECKING:
    from effcap.captioner import Captioner

MAX_EMA_SPAN = 0.2  # of all steps: the moving average spans 1 / (1 - momentum) steps


def make_optimizer(
    options: TrainingOptions, steps: int, captioner: Captioner | None = None
) -> CaptionOptimizer:
    """Returns the optimizer of a run.

    Weight decay leaves out biases, normalization layers and embeddings.

    Args:
        options: options of the optimization.
        steps: number of steps of the run.
        captioner: captioner to train; None for the same learning rate and decay everywhere.

    Raises:
        ValueError: a component with its own learning rate is frozen.
    """
    ema_momentum = max(min(options.ema_momentum, 1 - 1 / (MAX_EMA_SPAN * steps)), 0.0)
    accumulation = options.gradient_accumulation_steps
    return CaptionOptimizer(
        make_schedule(options, steps),
        decay=options.weight_decay,
        no_decay=[] if captioner is None else no_decay_paths(captioner),
        factors={} if captioner is None else learning_rate_factors(options, captioner),
        beta_2=0.98,
        global_clipnorm=options.clip_norm or None,
        use_ema=ema_momentum > 0,
        ema_momentum=ema_momentum,
        gradient_accumulation_steps=accumulation if accumulation > 1 else None,
    )


def make_schedule(
    options: TrainingOptions, steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns the learning rate of each step.

    It rises linearly to `learning_rate` at step `int(warmup_fraction * steps)`, and falls to 0 at
    step `steps`.

    Args:
        options: options of the optimization.
        steps: number of steps of the run.
    """
    warmup_steps = int(options.warmup_fraction * steps)
    if options.schedule == LINEAR:
        return LinearDecay(options.learning_rate, steps, warmup_steps)
    return keras.optimizers.schedules.CosineDecay(
        # Above 0, because the first step would change nothing.
        initial_learning_rate=options.learning_rate / (warmup_steps + 1),
        decay_steps=steps - warmup_steps,
        warmup_target=options.learning_rate,
        warmup_steps=warmup_steps,
    )


def no_decay_paths(captioner: Captioner) -> list[str]:
    """Returns the paths of the trainable biases, normalization weights and embeddings."""
    exempt = no_decay_variables(captioner)
    return [v.path for v in captioner.trainable_variables if id(v) in exempt]


def learning_rate_factors(options: TrainingOptions, captioner: Captioner) -> dict[str, float]:
    """Returns factors of the learning rate by path, for the variables with their own rate.

    Raises:
        ValueError: a component with its own learning rate is frozen.
    """
    backbone = getattr(captioner.encoder, "backbone", None)
    variables_by_component = {
        "backbone": [] if backbone is None else backbone.trainable_variables,
        "decoder": [v for v in captioner.decoder.pretrained_variables if v.trainable],
    }
    factors: dict[str, float] = {}
    for component, variables in variables_by_component.items():
        rate = getattr(options, f"{component}_learning_rate")
        if rate is None:
            continue
        if not variables:
            raise ValueError(
                f"{component}_learning_rate requires a {component} that is not frozen. "
                f"Received: {component}_learning_rate={rate}"
            )
        factors |= {v.path: rate / options.learning_rate for v in variables}
    return factors
