"""The optimizer of training runs: AdamW with a learning rate for each part of the captioner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import keras
from keras import ops

from effcap.trainers.distributed.replicas import sum_over_devices
from effcap.trainers.options.training import TrainingOptions

if TYPE_CHECKING:
    from effcap.captioner import Captioner

NO_DECAY = ("bias", "gamma", "beta", "wte", "wpe", "special_wte", "position_embedding")
EMA_SPAN = 0.2  # of all steps, at most: 1 / (1 - momentum) of the moving average


@keras.saving.register_keras_serializable("effcap")
class CaptionOptimizer(keras.optimizers.Adam):
    """AdamW (Loshchilov and Hutter, 2019) that can train some variables at a rate of their own.

    Args:
        learning_rate: a number or a schedule.
        decay: weight decay, on all variables but those named in `NO_DECAY`.
        factors: of the learning rate, by the path of a variable; 1 for those not named.
        kwargs: of `keras.optimizers.Adam`.
    """

    def __init__(
        self,
        learning_rate=1e-3,
        decay: float = 0.0,
        factors: Mapping[str, float] | None = None,
        name: str = "caption_optimizer",
        **kwargs,
    ):
        super().__init__(learning_rate, name=name, **kwargs)
        self.decay, self.factors = decay, dict(factors or {})

    def build(self, variables):
        super().build(variables)
        self._factors = [self.factors.get(variable.path, 1.0) for variable in variables]
        self._decays = [0.0 if variable.name in NO_DECAY else self.decay for variable in variables]

    def apply(self, grads, trainable_variables=None):
        """Sums the gradients of all devices first: Keras would clip those of each by themselves."""
        known = [gradient for gradient in grads if gradient is not None]
        sums = iter(sum_over_devices(known))
        grads = [None if gradient is None else next(sums) for gradient in grads]
        super().apply(grads, trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Nothing, in place of what Keras does after clipping: see `apply`."""
        return grads_and_vars

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self._factors[index]
        if self._decays[index]:
            self.assign_sub(variable, variable * (rate * self._decays[index]))
        super().update_step(gradient, variable, rate)

    def finalize_variable_values(self, var_list):
        """Nothing: Keras would end each `fit` with the averages in place of the weights, but a run
        is one `fit` per epoch; see `average`."""

    def average(self, captioner: Captioner) -> None:
        """Gives the captioner the moving averages of its weights, if they are kept."""
        if not self.use_ema:
            return
        super().finalize_variable_values(captioner.trainable_variables)
        for variable in captioner.trainable_variables:
            # Weights and averages now share their arrays, and JAX reuses those of the weights.
            variable.assign(ops.convert_to_numpy(variable))

    @contextmanager
    def averaged(self, captioner: Captioner) -> Iterator[None]:
        """Within it, the captioner has the averages; then its weights again, to the bit."""
        if not self.use_ema:
            yield
            return
        variables = captioner.trainable_variables
        trained = [ops.convert_to_numpy(variable) for variable in variables]
        self.average(captioner)
        try:
            yield
        finally:
            for variable, value in zip(variables, trained, strict=True):
                variable.assign(value)

    def get_config(self) -> dict:
        return {**super().get_config(), "decay": self.decay, "factors": self.factors}


def make_optimizer(
    options: TrainingOptions, steps: int, captioner: Captioner | None = None
) -> CaptionOptimizer:
    """AdamW with warmup, cosine decay, clipping, gradient accumulation, and the moving average of
    weights if asked for.

    The learning rate rises in a straight line, reaches `options.learning_rate` after
    `int(options.warmup * steps)` steps, and falls as a cosine to 0 after step `steps`.

    Args:
        options: how to train.
        steps: in the whole run.
        captioner: whose backbone and decoder may have learning rates of their own.

    Raises:
        ValueError: for the learning rate of a part that is not trained.
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
    accumulation = options.gradient_accumulation
    return CaptionOptimizer(
        schedule,
        decay=options.weight_decay,
        factors=learning_rate_factors(options, captioner) if captioner is not None else None,
        beta_2=0.98,
        global_clipnorm=options.clip_norm or None,
        use_ema=ema > 0,
        ema_momentum=max(ema, 0.0),
        gradient_accumulation_steps=accumulation if accumulation > 1 else None,
    )


def learning_rate_factors(options: TrainingOptions, captioner: Captioner) -> dict[str, float]:
    """Factors of the learning rate by the paths of the variables that have one of their own."""
    backbone = getattr(captioner.encoder, "backbone", None)
    parts = {
        "backbone": [] if backbone is None else backbone.trainable_variables,
        "decoder": [v for v in captioner.decoder.pretrained_variables if v.trainable],
    }
    factors = {}
    for part, variables in parts.items():
        rate = getattr(options, f"{part}_learning_rate")
        if rate is None:
            continue
        if not variables:
            raise ValueError(
                f"Expected no learning rate for a {part} that is frozen. "
                f"Received: {part}_learning_rate={rate}"
            )
        factors |= {variable.path: rate / options.learning_rate for variable in variables}
    return factors
