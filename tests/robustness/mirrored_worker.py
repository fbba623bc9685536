"""Trains a captioner on one device and its copy on two, as in a notebook; prints differences.

The captioner has a prefix and trains with an n-pair loss.
"""

from __future__ import annotations

import json
from contextlib import nullcontext

import checkout  # noqa: F401
import keras
import numpy as np
import tensorflow as tf

from effcap.captioner import Captioner
from effcap.npair import NPairLoss
from effcap.tokenizers import Tokenizer
from helpers.captioners import CAPTIONS, example_batch, numpy, randomize, tiny_hparams

PREFIX = {"fusion": {"kind": "prefix"}, "max_sequence_length": 56}


def train(scope) -> tuple[dict, list[np.ndarray]]:
    """Returns the scores of an uneven batch before and in training, and the weights after it."""
    with scope:
        keras.utils.set_random_seed(0)
        tokenizer = Tokenizer.train(CAPTIONS, 300)
        captioner = Captioner.from_hparams(tiny_hparams(**PREFIX), tokenizer)
        randomize(captioner).compile(keras.optimizers.SGD(0.3), NPairLoss(), jit_compile=False)
    inputs, targets, weights = example_batch(captioner, rows=6)
    weights[4, 1:] = weights[5] = 0  # the second device has fewer tokens
    dataset = tf.data.Dataset.from_tensor_slices((inputs, targets, weights)).batch(6)
    scores = captioner.evaluate(dataset, verbose=0, return_dict=True)
    history = captioner.fit(dataset, epochs=2, verbose=0).history
    scores |= {f"trained_{name}": values[-1] for name, values in history.items()}
    return scores, [numpy(variable) for variable in captioner.trainable_variables]


def main() -> None:
    """Prints the differences as JSON."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    scores, weights = train(nullcontext())
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    mirrored_scores, mirrored_weights = train(strategy.scope())
    differences = {name: scores[name] - mirrored_scores[name] for name in scores}
    pairs = zip(weights, mirrored_weights, strict=True)
    differences["weights"] = float(max(np.abs(one - other).max() for one, other in pairs))
    print(json.dumps(differences))


main()
