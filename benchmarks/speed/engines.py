"""The engines that benchmarks of captions compare, each in a process of its own.

    keras         EffCap on Keras's backend; float32, bfloat16
    openvino      EffCap's engine for CPUs; float32, bfloat16, int8
    transformers  transformers on torch, in the environment of --python; float32, bfloat16
    onnxruntime   EffCap's weights in graphs made by hand (see onnx_graphs.py); float32, int8

Add one by a function that takes the folder of `random_captioners.write` and a precision and returns
a `Generate`, and an entry in `ENGINES`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from workers import Answer, serve

END = 50256  # GPT-2's start, end and padding token
PRECISIONS = {
    "keras": ("float32", "bfloat16"),
    "openvino": ("float32", "bfloat16", "int8"),
    "transformers": ("float32", "bfloat16"),
    "onnxruntime": ("float32", "int8"),
}
CHOICES = [f"{name}-{precision}" for name, all_of in PRECISIONS.items() for precision in all_of]
PEER = "transformers-float32"  # ratios are to this one
Generate = Callable[[int, int, int], Any]  # (beams, photos, tokens) -> best captions (B, T)


def has_bfloat16() -> bool:
    """Returns whether the processor has instructions for bfloat16, as Linux reports it."""
    path = Path("/proc/cpuinfo")
    return path.is_file() and any(x in path.read_text() for x in ("avx512_bf16", "amx_bf16"))


def random_images(photos: int, size: tuple[int, int]) -> np.ndarray:
    """Returns images (B,h,w,3) of random pixels."""
    return np.random.default_rng(0).integers(0, 256, (photos, *size, 3), dtype=np.uint8)


def load_preset(captioner_class: Any, folder: Path | str, precision: str) -> Any:
    """Returns the captioner of a preset with weights of a precision.

    Raises:
        NotImplementedError: this version of EffCap has no such precision.
    """
    if precision == "float32":
        return captioner_class.from_preset(folder)
    try:
        return captioner_class.from_preset(folder, precision=precision)
    except TypeError as error:
        raise NotImplementedError(f"EffCap has no {precision} here: {error}") from error


def effcap_generate(folder: Path, precision: str, engine: str) -> Generate:
    """Returns a function that captions images as users of EffCap do."""
    import checkout  # noqa: F401

    from effcap.tools.cli.terminal import start_keras

    start_keras()
    from effcap import Beam, Captioner, Greedy

    captioner = load_preset(
        Captioner, folder / "effcap", precision if engine == "keras" else "float32"
    )
    size = captioner.encoder.image_size
    if engine != "keras":
        if not hasattr(captioner, "compile_for"):
            raise NotImplementedError(f"EffCap has no engine {engine} here")
        captioner = captioner.compile_for(engine, precision=precision)

    def generate(beams: int, photos: int, tokens: int) -> Any:
        limits = {"min_new_tokens": tokens, "max_new_tokens": tokens}
        sampler = Greedy(**limits) if beams == 1 else Beam(num_beams=beams, **limits)
        captions = captioner.generate(
            random_images(photos, size), sampler, details=True, batch_size=photos
        )
        return [options[0].tokens for options in captions]

    return generate


def transformers_generate(folder: Path, precision: str) -> Generate:
    """Returns a function that captions images by the model of transformers in a folder.

    Without a file of weights there, the weights are random.
    """
    import torch
    import transformers

    folder = folder / "transformers"
    config = transformers.AutoConfig.from_pretrained(folder)
    is_blip = config.model_type == "blip"
    kind: Any = transformers.VisionEncoderDecoderModel
    if is_blip:
        kind = transformers.BlipForConditionalGeneration
    has_weights = (folder / "model.safetensors").is_file()
    model = (kind.from_pretrained(folder) if has_weights else kind(config)).eval()
    model.to(getattr(torch, precision))
    side = config.vision_config.image_size if is_blip else config.encoder.image_size
    options = {"do_sample": False}
    if not is_blip:  # as in the published folder's generation_config.json
        names = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
        options |= dict.fromkeys(names, END)

    def generate(beams: int, photos: int, tokens: int) -> Any:
        images = random_images(photos, (side, side)).transpose(0, 3, 1, 2)  # (B,3,h,w)
        pixels = (torch.from_numpy(images.copy()).float() / 127.5 - 1).to(model.dtype)
        limits = {"min_new_tokens": tokens, "max_new_tokens": tokens}
        with torch.inference_mode():
            captions = model.generate(pixel_values=pixels, num_beams=beams, **limits, **options)
        return captions[:, -tokens:].tolist()

    return generate


def onnx_generate(folder: Path, precision: str) -> Generate:
    """Returns a function that captions images in ONNX Runtime."""
    if not (folder / "effcap" / "step.onnx").is_file():
        raise NotImplementedError("there are no ONNX graphs of this captioner")
    from onnx_search import OnnxCaptioner
    from random_captioners import SIDE

    captioner = OnnxCaptioner(folder / "effcap", precision, END)

    def generate(beams: int, photos: int, tokens: int) -> Any:
        return captioner.generate(random_images(photos, (SIDE, SIDE)), beams, tokens).tolist()

    return generate


ENGINES: dict[str, Callable[[Path, str], Generate]] = {
    "keras": lambda folder, precision: effcap_generate(folder, precision, "keras"),
    "openvino": lambda folder, precision: effcap_generate(folder, precision, "openvino"),
    "transformers": transformers_generate,
    "onnxruntime": onnx_generate,
}


def serve_engine(choice: str, folder: Path) -> None:
    """Answers requests with `beams`, `photos`, `tokens` by the seconds and the captions."""

    def create() -> tuple[Answer, dict[str, Any]]:
        name, _, precision = choice.partition("-")
        generate = ENGINES[name](folder, precision)

        def answer(request: dict[str, Any]) -> dict[str, Any]:
            started, worked = time.perf_counter(), time.process_time()
            captions = generate(request["beams"], request["photos"], request["tokens"])
            seconds, cpu = time.perf_counter() - started, time.process_time() - worked
            return {"seconds": seconds, "cpu": cpu, "captions": captions}

        return answer, {}

    serve(create)


def work_of(folder: Path) -> dict[str, int] | None:
    """Returns the work of a captioner's photos and steps; None if it is not counted."""
    path = folder / "effcap" / "work.json"
    return json.loads(path.read_text()) if path.is_file() else None
