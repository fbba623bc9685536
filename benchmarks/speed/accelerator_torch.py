"""The side of transformers in accelerator.py, on a GPU if torch has one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from workers import Answer

DECODERS = {
    "tiny": {"vocab_size": 512, "n_positions": 64, "n_embd": 64, "n_layer": 2, "n_head": 2},
    "124m": {"n_embd": 768, "n_layer": 12, "n_head": 12},
    "355m": {"n_embd": 1024, "n_layer": 24, "n_head": 16},
}
TINY_VIT = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
}


def caption_and_train(job: str, size: str) -> tuple[Answer, dict[str, Any]]:
    """Returns a worker's functions for "captions" or "training" at a size."""
    import torch
    from transformers import GPT2Config, VisionEncoderDecoderModel, ViTConfig
    from transformers import VisionEncoderDecoderConfig as Config

    place = "cuda" if torch.cuda.is_available() else "cpu"
    vit = ViTConfig(**(TINY_VIT if size == "tiny" else {}))
    gpt2 = GPT2Config(**DECODERS[size], add_cross_attention=True, is_decoder=True)
    end = gpt2.vocab_size - 1  # GPT-2's start, end and padding token
    gpt2.bos_token_id = gpt2.eos_token_id = end
    config = Config.from_encoder_decoder_configs(vit, gpt2)
    config.decoder_start_token_id = config.pad_token_id = config.eos_token_id = end
    model = VisionEncoderDecoderModel(config).to(place)
    work = count_work(model, vit)
    if job == "captions":
        run, passes = generate(model.eval().to(torch.bfloat16)), 1
    else:
        run, passes = train(model.train()), 3

    def synchronize() -> None:
        if place == "cuda":
            torch.cuda.synchronize()

    def answer(request: dict[str, int]) -> dict[str, Any]:
        rows = request["photos"] * (request["beams"] if job == "captions" else 1)
        batches = 1 if job == "captions" else request["steps"]
        shape = (request["photos"], 3, vit.image_size, vit.image_size)
        pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        synchronize()
        started = time.perf_counter()
        run(pixels, request)
        synchronize()
        seconds = time.perf_counter() - started
        once = request["photos"] * work["encoder"] + 2 * rows * request["tokens"] * work["step"]
        return {"seconds": seconds, "operations": passes * batches * once}

    name = torch.cuda.get_device_name() if place == "cuda" else "cpu"
    return answer, {"device": name, "peak": peak(place, synchronize)}


def count_work(model: Any, vit: Any) -> dict[str, int]:
    """Counts what `random_captioners.count_work` does."""
    positions = (vit.image_size // vit.patch_size) ** 2 + 1
    encoder = matrices(model.encoder)
    memory = sum(p.numel() for n, p in model.decoder.named_parameters() if is_memory(n))
    step = matrices(model.decoder) - memory + model.decoder.lm_head.weight.numel()
    return {"encoder": 2 * positions * (encoder + memory), "step": step}


def matrices(module: Any) -> int:
    """Counts the weights of a module's layers, without tables of embeddings."""
    return sum(
        p.numel()
        for name, p in module.named_parameters()
        if p.ndim == 2 and not any(x in name for x in ("wte", "wpe", "lm_head", "embedding"))
    )


def is_memory(name: str) -> bool:
    """Returns whether a weight makes the keys and values of memory."""
    return name.endswith("crossattention.c_attn.weight")


def generate(model: Any) -> Callable[[Any, dict[str, int]], Any]:
    """Returns a function that captions images (B,3,h,w)."""
    import torch

    def run(pixels: Any, request: dict[str, int]) -> None:
        tokens = request["tokens"]
        with torch.inference_mode():
            model.generate(
                pixel_values=pixels.to(model.device, model.dtype),
                num_beams=request["beams"],
                do_sample=False,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                pad_token_id=model.config.pad_token_id,
            )

    return run


def train(model: Any) -> Callable[[Any, dict[str, int]], Any]:
    """Returns a function that trains all of a model on images (B,3,h,w) and random captions."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), 1e-5, fused=True)

    def run(pixels: Any, request: dict[str, int]) -> None:
        labels = torch.randint(0, model.config.pad_token_id, (request["photos"], request["tokens"]))
        for _ in range(request["steps"]):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(model.device.type, torch.bfloat16):
                loss = model(
                    pixel_values=pixels.to(model.device), labels=labels.to(model.device)
                ).loss
            loss.backward()
            optimizer.step()

    return run


def peak(place: str, synchronize: Callable[[], None]) -> float:
    """Measures the operations per second of a product of large matrices in bfloat16."""
    import torch

    side = 8192 if place == "cuda" else 1024
    matrix = torch.ones((side, side), dtype=torch.bfloat16, device=place)
    matrix @ matrix
    seconds = []
    for _ in range(5):
        synchronize()
        started = time.perf_counter()
        matrix @ matrix
        synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)
