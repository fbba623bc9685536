"""The compiled training step: one trace, no gradients of what is frozen, no graph rewriter."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.utils.graph_rewriting import no_graph_rewriting
from helpers.captioners import example_batch

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="counts the traces of TensorFlow"
)


class GraphCounter:
    """Keeps the graphs that `train_step` is traced into."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import tensorflow as tf

        train_step = Captioner.train_step
        self.graphs: list = []

        def traced(captioner, data):
            logs = train_step(captioner, data)
            self.graphs.append(tf.compat.v1.get_default_graph())
            return logs

        monkeypatch.setattr(Captioner, "train_step", traced)


@pytest.mark.slow
def test_a_notebook_traces_the_step_once_and_a_frozen_backbone_has_no_gradients(
    captioner, monkeypatch
):
    counter = GraphCounter(monkeypatch)
    captioner.compile()
    arrays = [np.concatenate([x] * 4) for x in example_batch(captioner, 3, "images")[1:]]
    batch = example_batch(captioner, 3, "images")[0]
    inputs = {name: np.concatenate([x] * 4) for name, x in batch.items()}
    for _ in range(2):  # the last of three batches is smaller
        captioner.fit(inputs, arrays[0], sample_weight=arrays[1], batch_size=5, verbose=0)
    (graph,) = counter.graphs
    types = [operation.type for operation in graph.get_operations()]
    assert "Conv2D" in types
    assert not {"Conv2DBackpropInput", "Conv2DBackpropFilter"} & set(types)
    assert types.count("ResourceApplyAdam") == len(captioner.trainable_variables)


def test_the_graph_rewriter_is_off_only_within_the_statement():
    import tensorflow as tf

    def is_off() -> bool:
        return tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"]

    with no_graph_rewriting(), no_graph_rewriting():
        assert is_off() == (not tf.config.list_physical_devices("GPU"))
    assert not is_off()
    with pytest.raises(RuntimeError), no_graph_rewriting():
        raise RuntimeError
    assert not is_off()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        with no_graph_rewriting():
            pass
        assert is_off()
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
