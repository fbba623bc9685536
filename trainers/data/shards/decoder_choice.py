"""Chooses the image decoder by name and by the hardware."""

from __future__ import annotations

from effcap.images import Fit, Resample
from effcap.trainers.data.shards.image_decoder import (
    IMAGE_DECODERS,
    ImageDecoder,
    PillowDecoder,
)


def make_image_decoder(
    name: str | None,
    image_size: tuple[int, int],
    fit: Fit = "squash",
    batch_size: int = 32,
    num_threads: int = 1,
    resample: Resample | None = None,
) -> ImageDecoder:
    """Creates an image decoder by name.

    Args:
        name: "dali" (on the GPU if DALI can use one, otherwise on the CPU), "dali-cpu", "dali-gpu"
            or "pillow". None selects DALI if it is installed and has a GPU, otherwise Pillow, which
            resizes faster than DALI on a CPU.
        image_size: height and width in pixels.
        fit: see `effcap.images.load_photo`.
        batch_size: maximum number of photos decoded at once.
        num_threads: threads of DALI.
        resample: see `effcap.images.load_photo`.

    Raises:
        ValueError: the name is unknown, or "dali-gpu" without a GPU.
        ImportError: DALI is selected and not installed.
    """
    from effcap.trainers.data.shards.dali import DaliDecoder, has_dali, has_dali_gpu

    if name is None:
        name = "dali" if has_dali() and has_dali_gpu() else "pillow"
    if name == "pillow":
        return PillowDecoder(image_size, fit, resample)
    if name not in IMAGE_DECODERS:
        raise ValueError(
            f"Expected an image decoder out of {', '.join(IMAGE_DECODERS)}. Received: {name!r}"
        )
    if not has_dali():
        raise ImportError(
            f"The image decoder {name!r} requires NVIDIA DALI, on Linux only: pip install "
            "'effcap[dali]'; 'pillow' runs everywhere"
        )
    device = {"dali-cpu": "cpu", "dali-gpu": "gpu"}.get(name)
    return DaliDecoder(image_size, fit, batch_size, num_threads, device, resample)
