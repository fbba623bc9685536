"""Compares captions per second with those of transformers, on the same random weights.

    python benchmarks/speed/beside_transformers.py --python ../torch/bin/python

Writes a captioner of the published size as a folder of transformers. EffCap converts it, and
transformers loads it in the environment of --python, which has torch and transformers. Both stay
in processes of their own and take turns on the same images; every caption has exactly `--tokens`
tokens. Reading and resizing of photos is left out on both sides.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MODELS = ("vit-gpt2", "blip-base")
END = 50256  # GPT-2's start, end and padding token
SETTINGS = [(beams, photos) for beams in (1, 4) for photos in (1, 8)]
Generate = Callable[[int, int], Any]


def write(folder: Path, model: str) -> None:
    """Writes a captioner with random weights, and a vocabulary of the published size."""
    import checkout  # noqa: F401
    from load_captioner import write as write_weights
    from tokenizers import pre_tokenizers

    write_weights("safetensors", folder, model)
    if model == "vit-gpt2":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        words = [*alphabet, *(f"Ġ{number}" for number in range(50256 - len(alphabet)))]
        vocabulary = {word: number for number, word in enumerate([*words, "<|endoftext|>"])}
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
        (folder / "merges.txt").write_text("#version: 0.2\n")
    else:
        words = [f"word{number}" for number in range(30522)]
        words[0], words[100:103] = "[PAD]", ["[UNK]", "[CLS]", "[SEP]"]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")


def effcap_generate(folder: Path, tokens: int) -> Generate:
    """Returns a function that captions a number of images with a number of beams."""
    import checkout  # noqa: F401

    from effcap.tools.cli.terminal import start_keras

    start_keras()
    from effcap import Beam, Captioner, Greedy

    captioner = Captioner.from_preset(folder)
    limits = {"min_new_tokens": tokens, "max_new_tokens": tokens}

    def generate(beams: int, photos: int) -> Any:
        sampler = Greedy(**limits) if beams == 1 else Beam(num_beams=beams, **limits)
        images = random_images(photos, captioner.encoder.image_size)
        return captioner.generate_batch({"images": images}, sampler)

    return generate


def transformers_generate(folder: Path, tokens: int) -> Generate:
    """Returns a function that captions a number of images with a number of beams."""
    import torch
    from transformers import BlipForConditionalGeneration, VisionEncoderDecoderModel

    is_blip = json.loads((folder / "config.json").read_text())["model_type"] == "blip"
    kind = BlipForConditionalGeneration if is_blip else VisionEncoderDecoderModel
    model = kind.from_pretrained(folder).eval()
    side = model.config.vision_config.image_size if is_blip else model.config.encoder.image_size
    options = {"do_sample": False, "min_new_tokens": tokens, "max_new_tokens": tokens}
    if not is_blip:  # as in the published folder's generation_config.json
        names = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
        options |= dict.fromkeys(names, END)

    def generate(beams: int, photos: int) -> Any:
        images = random_images(photos, (side, side)).transpose(0, 3, 1, 2)  # (B,3,h,w)
        pixels = torch.from_numpy(images.copy()).float() / 127.5 - 1
        with torch.inference_mode():
            return model.generate(pixel_values=pixels, num_beams=beams, **options)

    return generate


def random_images(photos: int, size: tuple[int, int]) -> np.ndarray:
    """Returns images (B, h, w, 3)."""
    return np.random.default_rng(0).integers(0, 256, (photos, *size, 3), dtype=np.uint8)


GENERATORS = {"effcap": effcap_generate, "transformers": transformers_generate}


def serve(name: str, folder: Path, tokens: int) -> None:
    """Answers each line "BEAMS PHOTOS" of the input with the seconds that the captions took."""
    generate = GENERATORS[name](folder, tokens)
    for line in sys.stdin:
        started = time.perf_counter()
        generate(*map(int, line.split()))
        print(f"seconds {time.perf_counter() - started}", flush=True)


def ask(process: subprocess.Popen, setting: tuple[int, int]) -> float:
    """Returns the seconds that a process needs for a setting."""
    assert process.stdin is not None and process.stdout is not None
    print(*setting, file=process.stdin, flush=True)
    for line in process.stdout:
        if line.startswith("seconds "):
            return float(line.split()[1])
    raise RuntimeError("a process ended early; see its messages above")


def main() -> None:
    """Prints one row per model, number of beams and number of photos."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", type=Path, help="Python with torch and transformers")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--tokens", type=int, default=16, help="tokens per caption (default: 16)")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each (default: 5)")
    parser.add_argument("--serve", nargs=2, metavar=("NAME", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve[0], Path(arguments.serve[1]), arguments.tokens)
        return
    if arguments.python is None:
        parser.error("--python is required")
    print(
        f"{'model':10} {'beams':>5} {'photos':>6} {'EffCap':>12} {'transformers':>12} {'ratio':>6}"
    )
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as temporary:
            write(Path(temporary), model)
            processes = [
                subprocess.Popen(
                    [
                        python,
                        __file__,
                        "--tokens",
                        str(arguments.tokens),
                        "--serve",
                        name,
                        temporary,
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for name, python in (("effcap", sys.executable), ("transformers", arguments.python))
            ]
            for setting in SETTINGS:
                for process in processes:
                    ask(process, setting)  # compiles
                rounds = [[ask(p, setting) for p in processes] for _ in range(arguments.rounds)]
                mine, theirs = np.median(np.array(rounds), axis=0)
                ratio = np.median([other / one for one, other in rounds])
                beams, photos = setting
                print(
                    f"{model:10} {beams:5} {photos:6} {photos / mine:10.2f}/s "
                    f"{photos / theirs:10.2f}/s {ratio:6.2f}",
                    flush=True,
                )
            for process in processes:
                process.kill()


if __name__ == "__main__":
    main()
