"""Measures training steps and decoding of captioners, in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import numpy as np

from effcap.tools.cli.terminal import start_keras

BATCH_SIZE = 32  # photos
CAPTIONS, CAPTION_TOKENS = 5, 13  # per photo and per caption, about those of Flickr8k
NUM_BEAMS, NEW_TOKENS = 5, 20
STEPS = 5  # per round


def measure(
    variants: Mapping[str, dict[str, Any]], tokenizer_folder: Path, rounds: int
) -> dict[str, dict[str, float]]:
    """Measures each variant once per round, after one call that compiles.

    Steps and decoding start from features of the backbone. Weights and data are random: the work
    does not depend on them, because every caption is decoded to the same length.

    Args:
        variants: hyperparameters by name.
        tokenizer_folder: folder of the tokenizer.
        rounds: number of rounds, of which the median is taken.

    Returns:
        For each variant: "parameters", the number of trained ones; "step", seconds per training
        step; "decoding", seconds per photo.
    """
    start_keras()
    from effcap.tokenizers import Tokenizer

    tokenizer = Tokenizer.from_folder(tokenizer_folder)
    calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {}
    results: dict[str, dict[str, float]] = {}
    for name, hparams in variants.items():
        started = time.perf_counter()
        captioner = make_captioner(hparams, tokenizer)
        calls[name] = make_calls(captioner, tokenizer)
        for call in calls[name]:
            call()
        parameters = sum(int(np.prod(v.shape)) for v in captioner.trainable_variables)
        results[name] = {"parameters": parameters}
        print(f"{name}: compiled in {time.perf_counter() - started:.0f} s", flush=True)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, (train, decode) in calls.items():
            seconds[name].append((time_calls(train, STEPS), time_calls(decode) / BATCH_SIZE))
    for name, pairs in seconds.items():
        steps, decodings = zip(*pairs, strict=True)
        results[name] |= {
            "step": statistics.median(steps),
            "decoding": statistics.median(decodings),
        }
    return results


def make_captioner(hparams: dict[str, Any], tokenizer: Any) -> Any:
    """Creates a captioner and compiles it as a training run does."""
    import keras

    from effcap.captioner import Captioner
    from effcap.trainers.engine.optimizer import make_optimizer
    from effcap.trainers.objectives.cross_entropy import CrossEntropy
    from effcap.trainers.options import TrainingOptions

    options = TrainingOptions.from_dict(hparams["training"])
    captioner = Captioner.from_hparams(hparams, tokenizer)
    objective = CrossEntropy(options.label_smoothing, options.npair_weight)
    objective.build(captioner)
    captioner.compile(
        make_optimizer(options, 1000, captioner),
        objective.loss,
        list(objective.weighted_metrics),
        jit_compile=keras.backend.backend() == "jax",
    )
    return captioner


def make_calls(captioner: Any, tokenizer: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Returns a function that trains one step, and one that decodes a batch by beam search."""
    from effcap.samplers import Beam

    rng = np.random.default_rng(0)
    shape = (BATCH_SIZE, *captioner.encoder.backbone.feature_shape)
    features = rng.random(shape, np.float32).astype(np.float16)  # (B,S,C)
    size = (BATCH_SIZE, CAPTIONS * CAPTION_TOKENS)
    tokens = rng.integers(0, tokenizer.vocabulary_size, size, dtype=np.int32)  # (B,T)
    segments = np.repeat(np.arange(1, CAPTIONS + 1, dtype=np.int32), CAPTION_TOKENS)  # (T,)
    inputs = {
        "features": features,
        "tokens": tokens,
        "segments": np.broadcast_to(segments, size).copy(),  # (B,T)
    }
    targets, weights = np.roll(tokens, -1, axis=1), np.ones(size, np.float32)  # (B,T), (B,T)
    beam = Beam(num_beams=NUM_BEAMS, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS)
    return (
        lambda: captioner.train_on_batch(inputs, targets, weights),
        lambda: captioner.generate_batch({"features": features}, beam),
    )


def time_calls(call: Callable[[], Any], count: int = 1) -> float:
    """Returns the seconds per call."""
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) / count
