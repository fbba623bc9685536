"""Dense layers with low-rank adapters (LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
from keras import ops


class LowRankUpdate(keras.layers.Layer):
    """The update that an adapter adds to some outputs of a dense layer: dropout(x) A B scale + c.

    A starts uniform in ±1/sqrt(inputs), B and c at zero, as in PEFT, so a new update is zero.

    Args:
        units: number of outputs N that the update is added to.
        rank: rank r of the update.
        alpha: numerator of the scale alpha/r.
        dropout: rate on the input. Default 0.0.
        use_rslora: scale by alpha/sqrt(r) instead (Kalajdzievski 2023). Default False.
        use_bias: whether there is a c, (N,), the change of the layer's bias. Default False.
        adapter: name of the adapter that the update belongs to.
        start: index of the first output that the update is added to. Default 0.

    Call arguments:
        x: (..., inputs).

    Returns:
        (..., N).
    """

    def __init__(
        self,
        units: int,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        use_rslora: bool = False,
        use_bias: bool = False,
        adapter: str = "default",
        start: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units, self.rank, self.alpha, self.use_rslora = units, rank, alpha, use_rslora
        self.use_bias, self.adapter, self.start = use_bias, adapter, start
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    @property
    def scale(self) -> float:
        """Factor of the product of A and B."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)

    def build(self, shape: Any) -> None:
        limit = 1 / math.sqrt(shape[-1])
        self.lora_a = self.add_weight(
            shape=(shape[-1], self.rank),
            initializer=keras.initializers.RandomUniform(-limit, limit),
            name="lora_a",
        )
        self.lora_b = self.add_weight(
            shape=(self.rank, self.units), initializer="zeros", name="lora_b"
        )
        self.lora_c = None
        if self.use_bias:
            self.lora_c = self.add_weight(shape=(self.units,), initializer="zeros", name="lora_c")
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        x = self.dropout(x, training=training)
        x = ops.matmul(x, ops.cast(self.lora_a, x.dtype))  # (...,r)
        x = ops.matmul(x, ops.cast(self.lora_b, x.dtype)) * self.scale  # (...,N)
        return x if self.lora_c is None else x + ops.cast(self.lora_c, x.dtype)

    def product(self, outputs: Any = None) -> Any:
        """Computes A B scale, (inputs, N), in float32; of some outputs if they are given."""
        a, b = ops.cast(self.lora_a, "float32"), ops.cast(self.lora_b, "float32")
        if outputs is not None:
            b = ops.take(b, outputs, axis=1)  # (r,N)
        return ops.matmul(a, b) * self.scale  # (inputs,N)


class Adaptable(keras.layers.Layer):
    """A linear layer to which adapters can be added after it is built.

    A fused projection, such as that of queries, keys and values, may have an update for each part.

    Attributes:
        input_dim: width of the input, after `build`.
        units: width of the output.
        updates: updates of all adapters, also those that are not active.
        active: names of the adapters that are added to the output.
        merged: names of the adapters that are part of the kernel.
    """

    input_dim: int
    units: int

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.updates: list[LowRankUpdate] = []
        self.active: tuple[str, ...] = ()
        self.merged: tuple[str, ...] = ()

    def add_update(self, update: LowRankUpdate) -> None:
        """Adds the update of an adapter, which is not active yet.

        Raises:
            ValueError: the kernel is quantized.
        """
        mode = getattr(self.dtype_policy, "quantization_mode", None)
        if mode is not None:
            raise ValueError(
                "Expected a captioner that is not quantized to add an adapter to. "
                f"Received: {self.path} in {mode}"
            )
        with self._unlocked():
            update.build((None, self.input_dim))
            self.updates.append(update)

    def remove_updates(self, adapter: str) -> None:
        """Removes the updates of an adapter; a merged one stays part of the kernel."""
        with self._unlocked():
            for update in self.updates_of([adapter]):
                self.updates.remove(update)
        self.active = tuple(name for name in self.active if name != adapter)
        self.merged = tuple(name for name in self.merged if name != adapter)

    def updates_of(self, adapters: Sequence[str]) -> list[LowRankUpdate]:
        """Returns the updates of adapters."""
        return [update for update in self.updates if update.adapter in adapters]

    def add_updates(self, outputs: Any, inputs: Any, training: bool | None = None) -> Any:
        """Adds the active updates to the outputs (..., units) of inputs (..., input_dim)."""
        active = [name for name in self.active if name not in self.merged]
        for name in active:
            updates = sorted(self.updates_of([name]), key=lambda update: update.start)
            if updates:
                outputs = outputs + self._widen(updates, inputs, training)  # (...,units)
        return outputs

    def _widen(self, updates: list[LowRankUpdate], inputs: Any, training: bool | None) -> Any:
        """Computes the updates of an adapter side by side, with zeros where there is none."""
        parts, end = [], 0
        for update in updates:
            part = update(inputs, training=training)  # (...,N)
            if update.start > end:
                parts.append(ops.repeat(ops.zeros_like(part[..., :1]), update.start - end, axis=-1))
            parts.append(part)
            end = update.start + update.units
        if end < self.units:
            parts.append(ops.repeat(ops.zeros_like(parts[-1][..., :1]), self.units - end, axis=-1))
        return ops.concatenate(parts, axis=-1) if parts[1:] else parts[0]  # (...,units)

    @contextmanager
    def _unlocked(self) -> Iterator[None]:
        """Lets the built layer take other layers, as Keras's own `enable_lora` does.

        Variables are named after the layer, because optimizers and weight decay find them by path.
        """
        self._tracker.unlock()
        try:
            parent, _, name = (self.path or self.name).rpartition("/")
            with keras.name_scope(name, override_parent=parent):
                yield
        finally:
            self._tracker.lock()


class AdaptableDense(Adaptable, keras.layers.Dense):
    """A dense layer to which adapters can be added after it is built."""

    def build(self, shape: Any) -> None:
        super().build(shape)
        self.input_dim = shape[-1]

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.add_updates(super().call(inputs), inputs, training)

    def quantize(self, mode: Any = None, type_check: bool = True, config: Any = None) -> None:
        """Quantizes the kernel, as `keras.layers.Dense.quantize` does."""
        super().quantize(mode, type_check=False, config=config)

    def merge(self, adapters: Sequence[str]) -> None:
        """Adds the updates of adapters to the kernel and the bias."""
        self._change(adapters, 1.0)
        self.merged += tuple(adapters)

    def unmerge(self) -> None:
        """Subtracts the updates of the merged adapters from the kernel and the bias."""
        self._change(self.merged, -1.0)
        self.merged = ()

    def _change(self, adapters: Sequence[str], sign: float) -> None:
        """Adds the updates of adapters, times `sign`."""
        for update in self.updates_of(adapters):
            columns = slice(update.start, update.start + update.units)
            _add(self.kernel, (slice(None), columns), sign * update.product())
            if update.lora_c is not None:
                _add(self.bias, (columns,), sign * ops.cast(update.lora_c, "float32"))


class HeadWeights(NamedTuple):
    """Weights of an output projection in float32, as `TiedHead.prepare` makes them.

    Attributes:
        tables: rows of the kernel, (V_i, D) each, V tokens in all.
        bias: (V,); None without one.
    """

    tables: list[Any]
    bias: Any

    def forbid(self, forbidden: Any) -> HeadWeights:
        """Returns weights whose logits of the tokens that `forbidden` (V,) marks are -inf."""
        bias = ops.zeros(forbidden.shape, "float32") if self.bias is None else self.bias  # (V,)
        return self._replace(bias=ops.where(forbidden, float("-inf"), bias))


class TiedHead(Adaptable):
    """The output projection of a language model, whose kernel is the table of token embeddings.

    Args:
        input_dim: width D of the input.
        units: number V of tokens.
        use_bias: whether there is a bias (V,). Default False.

    Call arguments:
        x: (..., D).
        tables: embedding tables (V_i, D), V tokens in all.

    Returns:
        Logits (..., V), float32.
    """

    def __init__(self, input_dim: int, units: int, use_bias: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.input_dim, self.units, self.use_bias = input_dim, units, use_bias

    def build(self, shape: Any = None) -> None:
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")
        self.built = True

    def call(self, x: Any, tables: list[Any], training: bool | None = None) -> Any:
        output = self._products(x, tables)  # (...,V)
        output = ops.cast(self.add_updates(output, x, training), "float32")
        return output if self.bias is None else output + ops.cast(self.bias, "float32")

    def prepare(self, tables: list[Any], tokens: Any = None) -> HeadWeights:
        """Returns the weights by which `project` computes logits, with the active adapters merged.

        Args:
            tables: as in `call`; with `tokens`, the embeddings (N, D) of these alone.
            tokens: int (N,), tokens of the logits. None for all V.
        """
        tables = [ops.cast(table, "float32") for table in tables]
        bias = None if self.bias is None else ops.cast(self.bias, "float32")  # (V,)
        if bias is not None and tokens is not None:
            bias = ops.take(bias, tokens, axis=0)  # (N,)
        active = [name for name in self.active if name not in self.merged]
        for update in self.updates_of(active):
            table = ops.concatenate(tables, axis=0) if tables[1:] else tables[0]  # (V,D)
            tables = [table + ops.transpose(update.product(tokens))]
            if update.lora_c is not None and bias is not None:
                change = ops.cast(update.lora_c, "float32")  # (V,)
                bias = bias + (change if tokens is None else ops.take(change, tokens, axis=0))
        return HeadWeights(tables, bias)

    def project(self, x: Any, weights: HeadWeights) -> Any:
        """Computes float32 logits (..., V) of x (..., D), with the result of `prepare`."""
        x = ops.cast(x, "float32")
        output = self._products(x, weights.tables)  # (...,V)
        return output if weights.bias is None else output + weights.bias

    def _products(self, x: Any, tables: list[Any]) -> Any:
        """Computes the products (..., V) of x (..., D) with the rows of tables."""
        # On CPUs, the transposed table as the second factor takes two to eight times as long.
        flat = ops.transpose(ops.reshape(x, (-1, self.input_dim)))  # (...,D) -> (D,N)
        products = [ops.matmul(table, flat) for table in tables]  # (V_i,N)
        output = ops.concatenate(products, axis=0) if products[1:] else products[0]  # (V,N)
        size = output.shape[0]
        return ops.reshape(ops.transpose(output), (*ops.shape(x)[:-1], size))  # (...,V)


def _add(variable: keras.Variable, part: tuple[slice, ...], change: Any) -> None:
    """Adds to a part of a variable, in float32."""
    value = ops.cast(variable, "float32")
    start = tuple(index.start or 0 for index in part)
    value = ops.slice_update(value, start, value[part] + change)
    variable.assign(ops.cast(value, variable.dtype))
