"""EffCap's side of accelerator.py, on Keras's backend."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from engines import load_preset
from workers import Answer


def caption_and_train(job: str, size: str) -> tuple[Answer, dict[str, Any]]:
    """Returns a worker's functions for "captions" or "training" at a size."""
    import keras
    from random_captioners import count_work, create, create_tiny

    if job == "training":
        keras.config.set_dtype_policy("mixed_bfloat16")
    captioner = create_tiny() if size == "tiny" else create(f"gpt2-{size}")
    work = count_work(captioner)
    if job == "captions":
        captioner = with_short_weights(captioner)
    run, passes = (generate, 1) if job == "captions" else (train, 3)
    prepared = run(captioner)

    def answer(request: dict[str, int]) -> dict[str, Any]:
        rows = request["photos"] * (request["beams"] if job == "captions" else 1)
        batches = 1 if job == "captions" else request["steps"]
        started = time.perf_counter()
        prepared(request)
        seconds = time.perf_counter() - started
        once = request["photos"] * work["encoder"] + 2 * rows * request["tokens"] * work["step"]
        return {"seconds": seconds, "operations": passes * batches * once}

    return answer, {"device": device(), "peak": peak()}


def with_short_weights(captioner: Any) -> Any:
    """Returns a captioner with the same weights in bfloat16, loaded as users do."""
    from effcap import Captioner

    with tempfile.TemporaryDirectory() as folder:
        captioner.save_to_preset(folder)
        return load_preset(Captioner, folder, "bfloat16")


def generate(captioner: Any) -> Callable[[dict[str, int]], Any]:
    """Returns a function that captions random images."""
    from effcap import Beam

    def run(request: dict[str, int]) -> None:
        tokens = request["tokens"]
        sampler = Beam(num_beams=request["beams"], min_new_tokens=tokens, max_new_tokens=tokens)
        images = random_images(request["photos"], captioner.encoder.image_size)
        captioner.generate_batch({"images": images}, sampler)

    return run


def train(captioner: Any) -> Callable[[dict[str, int]], Any]:
    """Returns a function that trains all of a captioner by `fit`."""
    import keras

    captioner.encoder.backbone.net.trainable = True
    captioner.compile(keras.optimizers.AdamW(1e-5))

    class Batches(keras.utils.PyDataset):
        """The same random batch, as often as there are steps."""

        def __init__(self, request: dict[str, int]) -> None:
            super().__init__()
            shape = (request["photos"], request["tokens"])
            vocabulary_size = captioner.decoder.vocabulary_size
            tokens = np.random.default_rng(0).integers(0, vocabulary_size, shape, dtype=np.int32)
            images = random_images(request["photos"], captioner.encoder.image_size)
            inputs = {"images": images, "tokens": tokens, "segments": np.ones_like(tokens)}
            self.batch = (inputs, tokens, np.ones(shape, np.float32))
            self.steps = request["steps"]

        def __len__(self) -> int:
            return self.steps

        def __getitem__(self, index: int) -> Any:
            return self.batch

    return lambda request: captioner.fit(Batches(request), epochs=1, verbose=0)


def random_images(photos: int, size: tuple[int, int]) -> np.ndarray:
    """Returns images (B,h,w,3) of random pixels."""
    return np.random.default_rng(0).integers(0, 256, (photos, *size, 3), dtype=np.uint8)


def device() -> str:
    """Returns the name of JAX's device."""
    import jax

    return jax.devices()[0].device_kind


def peak(side: int = 8192) -> float:
    """Measures the operations per second of a product of large matrices in bfloat16."""
    import jax
    from jax import numpy as jnp

    side = side if jax.default_backend() != "cpu" else 1024
    matrix = jnp.ones((side, side), jnp.bfloat16)
    product = jax.jit(lambda x: x @ x)
    product(matrix).block_until_ready()
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        product(matrix).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)
