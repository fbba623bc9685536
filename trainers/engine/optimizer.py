"""AdamW with learning rates by component, warmup, cosine decay and averaged weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from effcap.layers.roles import no_decay_variables
from effcap.trainers.distributed.replicas import sum_over_replicas
from effcap.trainers.options.training import TrainingOptions

if TYPE_CHECKING:
    from effcap.captioner import Captioner

MAX_EMA_SPAN = 0.2  # of all steps: the moving average spans 1 / (1 - momentum) steps


@keras.saving.register_keras_serializable("effcap")
class CaptionOptimizer(keras.optimizers.Adam):
    """AdamW (Loshchilov and Hutter, 2019) with learning rates and decay by variable.

    Args:
        learning_rate: a number or a schedule.
        decay: decoupled weight decay.
        no_decay: paths of the variables without weight decay.
        factors: factors of the learning rate by path of a variable; 1 for all others.
        name: name of the optimizer.
        **kwargs: arguments of `keras.optimizers.Adam`.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        decay: float = 0.0,
        no_decay: Collection[str] = (),
        factors: Mapping[str, float] | None = None,
        name: str = "caption_optimizer",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        self.decay, self.no_decay, self.factors = decay, sorted(no_decay), dict(factors or {})

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)
        no_decay = set(self.no_decay)
        self._decays = [0.0 if v.path in no_decay else self.decay for v in variables]
        self._factors = [self.factors.get(v.path, 1.0) for v in variables]

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None
    ) -> None:
        """Applies gradients summed over all replicas, because Keras would clip those of each."""
        sums = iter(sum_over_replicas([gradient for gradient in grads if gradient is not None]))
        grads = [None if gradient is None else next(sums) for gradient in grads]
        super().apply(grads, trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        """Returns its argument, because `apply` sums the gradients before clipping."""
        return grads_and_vars

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self._factors[index]
        if self._decays[index]:
            self.assign_sub(variable, variable * (rate * self._decays[index]))
        super().update_step(gradient, variable, rate)

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Does nothing, because a run calls `fit` once per epoch; see `assign_averages`."""

    def assign_averages(self, captioner: Captioner) -> None:
        """Replaces the captioner's weights by their moving averages, if there are any."""
        if not self.use_ema:
            return
        super().finalize_variable_values(captioner.trainable_variables)
        for variable in captioner.trainable_variables:
            # On JAX, weights and averages would share arrays, which training overwrites.
            variable.assign(ops.convert_to_numpy(variable))

    @contextmanager
    def averaged(self, captioner: Captioner) -> Iterator[None]:
        """Replaces the weights by their averages in a `with` statement; restores them exactly."""
        if not self.use_ema:
            yield
            return
        variables = captioner.trainable_variables
        weights = [ops.convert_to_numpy(variable) for variable in variables]
        self.assign_averages(captioner)
        try:
            yield
        finally:
            for variable, value in zip(variables, weights, strict=True):
                variable.assign(value)

    def get_config(self) -> dict[str, Any]:
        config = {"decay": self.decay, "no_decay": self.no_decay, "factors": self.factors}
        return {**super().get_config(), **config}


def make_optimizer(
    options: TrainingOptions, steps: int, captioner: Captioner | None = None
) -> CaptionOptimizer:
    """Returns the optimizer of a run.

    The learning rate rises linearly to `learning_rate` at step `int(warmup_fraction * steps)`, and
    falls as a cosine to 0 at step `steps`. Weight decay leaves out biases, normalization layers and
    embeddings.

    Args:
        options: options of the optimization.
        steps: number of steps of the run.
        captioner: captioner to train; None for the same learning rate and decay everywhere.

    Raises:
        ValueError: a component with its own learning rate is frozen.
    """
    warmup_steps = int(options.warmup_fraction * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        # Above 0, because the first step would change nothing.
        initial_learning_rate=options.learning_rate / (warmup_steps + 1),
        decay_steps=steps - warmup_steps,
        warmup_target=options.learning_rate,
        warmup_steps=warmup_steps,
    )
    ema_momentum = max(min(options.ema_momentum, 1 - 1 / (MAX_EMA_SPAN * steps)), 0.0)
    accumulation = options.gradient_accumulation_steps
    return CaptionOptimizer(
        schedule,
        decay=options.weight_decay,
        no_decay=[] if captioner is None else no_decay_paths(captioner),
        factors={} if captioner is None else learning_rate_factors(options, captioner),
        beta_2=0.98,
        global_clipnorm=options.clip_norm or None,
        use_ema=ema_momentum > 0,
        ema_momentum=ema_momentum,
        gradient_accumulation_steps=accumulation if accumulation > 1 else None,
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
