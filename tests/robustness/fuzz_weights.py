"""Damaged folders of GPT-2's weights in all formats."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from checkout import ROOT
from fuzz_report import Report
from fuzz_worker import Result, Worker

from helpers.gpt2_writers import WRITERS, shapes_of, write_folder

CONFIG = {"vocab_size": 23, "n_positions": 10, "n_embd": 8, "n_head": 2, "n_layer": 2}
OTHER = {"vocab_size": 23, "n_positions": 10, "n_embd": 12, "n_head": 2, "n_layer": 1}
TORCH_FILES = ROOT / "tests" / "data" / "gpt2_files"  # saved by PyTorch itself
VALUES = (None, True, -1, 0, 1, 7, 10**30, 1e308, "", "gpt2", "x" * 10000, [], [1], {}, {"a": 1})


@dataclass(frozen=True)
class Sample:
    """A valid folder.

    Attributes:
        name: name of the folder.
        files: contents by file name.
        values: bool array per file, True for bytes of the tensors' values.
    """

    name: str
    files: dict[str, bytes]
    values: dict[str, np.ndarray]


def fuzz(cases: int, seed: int) -> Report:
    """Loads damaged folders."""
    report = Report()
    with tempfile.TemporaryDirectory() as temporary, Worker(make_loader) as worker:
        samples = make_samples(Path(temporary) / "whole")
        expected = {sample.name: worker.run(write(sample, temporary)) for sample in samples}
        for result in expected.values():
            assert result[0] == "loaded", result
        for case in range(cases):
            rng = np.random.default_rng([seed, case])
            sample = samples[rng.integers(len(samples))]
            damage = DAMAGES[rng.integers(len(DAMAGES))]
            files = dict(sample.files)
            description, may_differ = damage(rng, sample, files, samples)
            folder = write(Sample(sample.name, files, {}), temporary)
            kind, message = worker.run(folder)
            label = f"{sample.name}, {description}"
            if kind == "loaded" and (may_differ or message == expected[sample.name][1]):
                report.add_success()
            elif kind == "loaded":
                report.add_failure(case, f"{label}: loaded, with other values")
            elif kind == "refused" and any(name in message for name in (str(folder), *files)):
                report.add_error(message)
            else:
                report.add_failure(case, f"{label}: {kind}: {message}")
    return report


def write(sample: Sample, temporary: str) -> Path:
    """Writes the files of a sample to a folder of its name."""
    folder = Path(temporary) / sample.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in sample.files.items():
        (folder / name).write_bytes(content)
    return folder


# Valid folders


def make_samples(root: Path) -> list[Sample]:
    """Returns a sample in each format of `WRITERS`, and those that PyTorch wrote."""
    samples = []
    for number, config in enumerate((CONFIG, OTHER)):
        shapes, rng = shapes_of(config), np.random.default_rng(number)
        arrays = {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
        for form in WRITERS:
            folder = write_folder(
                form, root / f"{form}{number}", config, shapes, arrays.__getitem__
            )
            samples.append(read_sample(folder, list(arrays.values())))
    for name, file in (
        ("small", "pytorch_model.bin"),
        ("odd", "pytorch_model.bin"),
        ("odd", "model.safetensors"),
    ):
        folder = root / f"{name}-{Path(file).suffix[1:]}"
        folder.mkdir()
        for source in (file, "config.json"):
            shutil.copy(TORCH_FILES / name / source, folder)
        samples.append(read_sample(folder, read_tensors(folder)))
    return samples


def read_tensors(folder: Path) -> list[np.ndarray]:
    """Returns all tensors of a folder."""
    from effcap.weights.gpt2.formats import open_gpt2

    return [tensor.read() for tensor in open_gpt2(folder).tensors.values()]


def read_sample(folder: Path, arrays: list[np.ndarray]) -> Sample:
    """Returns a folder as a sample, given the arrays that it holds."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    values = {}
    for name, content in files.items():
        values[name] = np.zeros(len(content), bool)
        for array in arrays:
            data = array.tobytes()
            start = content.find(data) if len(data) > 4 else -1
            while start >= 0:
                values[name][start : start + len(data)] = True
                start = content.find(data, start + 1)
    return Sample(folder.name, files, values)


# Damages: each changes `files`, and returns a description and whether the values may differ


def pick(rng: np.random.Generator, files: dict[str, bytes]) -> str:
    """Returns the name of a file, less often of a JSON file."""
    names = [name for name in sorted(files) if not name.endswith(".json") or rng.random() < 0.2]
    names = names or sorted(files)
    return names[rng.integers(len(names))]


def position_in(rng: np.random.Generator, sample: Sample, name: str) -> int:
    """Returns a position in a file, at least half of the time outside the tensors' values."""
    outside = np.flatnonzero(~sample.values[name])
    if len(outside) and rng.random() < 0.5:
        return int(rng.choice(outside))
    return int(rng.integers(len(sample.files[name])))


def flip(rng, sample, files, samples) -> tuple[str, bool]:
    """Flips one to three bits."""
    name = pick(rng, files)
    content, first = bytearray(files[name]), position_in(rng, sample, name)
    is_value = sample.values[name][first]
    same_kind = np.flatnonzero(sample.values[name] == is_value)
    positions = [first, *map(int, rng.choice(same_kind, rng.integers(0, 3)))]
    for position in positions:
        content[position] ^= 1 << int(rng.integers(8))
    files[name] = bytes(content)
    return f"bits of {name} flipped at {positions}", bool(is_value)


def overwrite(rng, sample, files, samples) -> tuple[str, bool]:
    """Overwrites one to eight bytes."""
    name = pick(rng, files)
    content, position = bytearray(files[name]), position_in(rng, sample, name)
    size = min(int(rng.integers(1, 9)), len(content) - position)
    content[position : position + size] = rng.bytes(size) if rng.random() < 0.5 else b"\xff" * size
    files[name] = bytes(content)
    is_value = sample.values[name][position : position + size].any()
    return f"{size} bytes of {name} overwritten at {position}", bool(is_value)


def truncate(rng, sample, files, samples) -> tuple[str, bool]:
    """Cuts a file off."""
    name = pick(rng, files)
    size = position_in(rng, sample, name)
    files[name] = files[name][:size]
    return f"{name} cut to {size} bytes", False


def insert(rng, sample, files, samples) -> tuple[str, bool]:
    """Inserts up to 19 bytes."""
    name = pick(rng, files)
    position, new = position_in(rng, sample, name), rng.bytes(int(rng.integers(1, 20)))
    files[name] = files[name][:position] + new + files[name][position:]
    return f"{len(new)} bytes inserted into {name} at {position}", False


def remove(rng, sample, files, samples) -> tuple[str, bool]:
    """Removes up to 19 bytes."""
    name = pick(rng, files)
    position, size = position_in(rng, sample, name), int(rng.integers(1, 20))
    files[name] = files[name][:position] + files[name][position + size :]
    return f"{size} bytes of {name} removed at {position}", False


def swap(rng, sample, files, samples) -> tuple[str, bool]:
    """Replaces a file by another file of this folder, or of a folder with other sizes."""
    others = [other for other in samples if other.name[-1] != sample.name[-1]]
    donor = files if rng.random() < 0.5 else others[rng.integers(len(others))].files
    name, other = pick(rng, files), pick(rng, donor)
    files[name] = donor[other]
    origin = "this" if donor is files else "another"
    return f"{name} replaced by {other} of {origin} folder", False


def drop(rng, sample, files, samples) -> tuple[str, bool]:
    """Removes a file."""
    name = pick(rng, files)
    del files[name]
    return f"{name} removed", False


def edit_json(rng, sample, files, samples) -> tuple[str, bool]:
    """Changes or removes a value of a JSON file."""
    names = [name for name in files if name.endswith(".json")]
    name = names[rng.integers(len(names))]
    contents = json.loads(files[name])
    section, path = contents, []
    while True:
        keys = sorted(section)
        path.append(keys[rng.integers(len(keys))])
        if not isinstance(section[path[-1]], dict) or not section[path[-1]]:
            break
        section = section[path[-1]]
    chance, value = rng.random(), VALUES[rng.integers(len(VALUES))]
    if chance < 0.2:
        del section[path[-1]]
        value = "nothing"
    elif chance < 0.3:
        contents = value
    else:
        section[path[-1]] = value
    files[name] = json.dumps(contents).encode()
    return f"{name}: {'.'.join(path)} is {str(value)[:30]!r}", False


Damage = Callable[..., tuple[str, bool]]
DAMAGES: tuple[Damage, ...] = (
    *(flip,) * 4,
    *(overwrite,) * 2,
    truncate,
    insert,
    remove,
    swap,
    drop,
    *(edit_json,) * 2,
)


# The worker


def make_loader() -> Callable[[Path], Result]:
    """Returns the function that loads a folder: ("loaded", hash of the values) or an error."""
    from effcap.tools.cli.terminal import start_keras

    start_keras()
    from effcap.weights.gpt2 import load_gpt2

    captioners: dict[str, SimpleNamespace] = {}

    def load(folder: Path) -> Result:
        if folder.name not in captioners:  # the first folder of a name is valid
            captioners[folder.name] = make_captioner(folder)
        captioner = captioners[folder.name]
        marks = [np.full(v.shape, 0.5) for v in captioner.decoder.weights]
        captioner.decoder.set_weights(marks)
        try:
            load_gpt2(captioner, folder)
        except (ValueError, OSError) as error:
            is_unchanged = all(
                np.array_equal(np.asarray(v), mark)
                for v, mark in zip(captioner.decoder.weights, marks, strict=True)
            )
            return "refused" if is_unchanged else "loaded in part", str(error)
        values = b"".join(np.asarray(v).tobytes() for v in captioner.decoder.weights)
        return "loaded", hashlib.sha256(values).hexdigest()

    return load


def make_captioner(folder: Path) -> SimpleNamespace:
    """Returns what `load_gpt2` needs of a captioner: a decoder of the folder's sizes."""
    from effcap.decoders.gpt2 import GPT2
    from effcap.weights.gpt2 import gpt2_hparams

    hparams = gpt2_hparams(folder)
    del hparams["kind"]
    decoder = GPT2(**hparams)
    decoder.build()
    return SimpleNamespace(decoder=decoder)
