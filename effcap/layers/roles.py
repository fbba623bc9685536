"""Finds the biases, normalization scales and embeddings of a model."""

from __future__ import annotations

import keras

from effcap.layers.embedding import Embedding


def no_decay_variables(model: keras.Model) -> set[int]:
    """Returns the `id`s of the variables that are excluded from weight decay.

    These are biases, scales and offsets of normalization layers (all of them vectors), and
    embedding tables, whether of tokens or positions.
    """
    exempt = {id(variable) for variable in model.variables if len(variable.shape) < 2}
    for layer in model._flatten_layers():
        if isinstance(layer, Embedding | keras.layers.Embedding):
            exempt |= {id(variable) for variable in layer.variables}
    return exempt
