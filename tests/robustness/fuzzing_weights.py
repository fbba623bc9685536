"""Damaged folders of GPT-2's weights in all formats, loaded in a process that may die of it."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from fuzz_report import Report
from helpers.gpt2_writers import WRITERS, shapes_of, write_folder

CONFIG = {"vocab_size": 23, "n_positions": 10, "n_embd": 8, "n_head": 2, "n_layer": 2}
OTHER = {"vocab_size": 23, "n_positions": 10, "n_embd": 12, "n_head": 2, "n_layer": 1}
OF_TORCH = Path(__file__).parents[1] / "tests" / "data" / "gpt2_files"  # saved by torch itself
SECONDS = 20.0  # for one case
MEMORY = 3 * 2**30  # bytes of address space that loading may take
VALUES = (None, True, -1, 0, 1, 7, 10**30, 1e308, "", "gpt2", "x" * 10000, [], [1], {}, {"a": 1})


@dataclass(frozen=True)
class Sample:
    """A folder that is whole: its files, and where in them the tensors' values lie."""

    name: str
    files: dict[str, bytes]
    values: dict[str, np.ndarray]  # bool for each byte of each file


def fuzz_weights(cases: int, seed: int) -> Report:
    """Loads `cases` damaged folders; the same seed makes the same ones."""
    report = Report()
    with tempfile.TemporaryDirectory() as temporary:
        samples = make_samples(Path(temporary) / "whole")
        worker = Worker()
        expected = {sample.name: worker.load(write(sample, temporary)) for sample in samples}
        for answer in expected.values():
            assert answer[0] == "loaded", answer
        for case in range(cases):
            rng = np.random.default_rng([seed, case])
            sample = samples[rng.integers(len(samples))]
            damage = DAMAGES[rng.integers(len(DAMAGES))]
            files = dict(sample.files)
            what, may_differ = damage(rng, sample, files, samples)
            folder = write(Sample(sample.name, files, {}), temporary)
            kind, told = worker.load(folder)
            where = f"{sample.name}, {what}"
            if kind == "loaded" and (may_differ or told == expected[sample.name][1]):
                report.add_success()
            elif kind == "loaded":
                report.add_failure(case, f"{where}: loaded, with other values")
            elif kind == "refused" and any(name in told for name in (str(folder), *files)):
                report.add_error(told)
            else:
                report.add_failure(case, f"{where}: {kind}: {told}")
        worker.stop()
    return report


def write(sample: Sample, temporary: str) -> Path:
    """Writes the files of a sample to a folder of its name."""
    folder = Path(temporary) / sample.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in sample.files.items():
        (folder / name).write_bytes(content)
    return folder


# Whole folders


def make_samples(root: Path) -> list[Sample]:
    """One in each form that we write, and those that PyTorch wrote."""
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
        for part in (file, "config.json"):
            shutil.copy(OF_TORCH / name / part, folder)
        samples.append(read_sample(folder, tensors_of(folder)))
    return samples


def tensors_of(folder: Path) -> list[np.ndarray]:
    from effcap.weights.gpt2.formats import open_gpt2

    return [tensor.read() for tensor in open_gpt2(folder).tensors.values()]


def read_sample(folder: Path, arrays: list[np.ndarray]) -> Sample:
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    values = {}
    for name, content in files.items():
        values[name] = np.zeros(len(content), bool)
        for array in arrays:
            data = array.tobytes()
            place = content.find(data) if len(data) > 4 else -1
            while place >= 0:
                values[name][place : place + len(data)] = True
                place = content.find(data, place + 1)
    return Sample(folder.name, files, values)


# Damages: each changes `files` and returns what it did, and whether the values may differ now


def pick(rng: np.random.Generator, files: dict[str, bytes]) -> str:
    """One of the files, less often one of JSON."""
    names = [name for name in sorted(files) if not name.endswith(".json") or rng.random() < 0.2]
    names = names or sorted(files)
    return names[rng.integers(len(names))]


def place_in(rng: np.random.Generator, sample: Sample, name: str) -> int:
    """A position in a file; half of them outside of the tensors' values."""
    outside = np.flatnonzero(~sample.values[name])
    if len(outside) and rng.random() < 0.5:
        return int(rng.choice(outside))
    return int(rng.integers(len(sample.files[name])))


def flip(rng, sample, files, samples) -> tuple[str, bool]:
    name = pick(rng, files)
    content, first = bytearray(files[name]), place_in(rng, sample, name)
    inside = sample.values[name][first]  # and so are the others, or none of them
    alike = np.flatnonzero(sample.values[name] == inside)
    places = [first, *map(int, rng.choice(alike, rng.integers(0, 3)))]
    for place in places:
        content[place] ^= 1 << int(rng.integers(8))
    files[name] = bytes(content)
    return f"bits of {name} flipped at {places}", bool(inside)


def overwrite(rng, sample, files, samples) -> tuple[str, bool]:
    name = pick(rng, files)
    content, place = bytearray(files[name]), place_in(rng, sample, name)
    size = min(int(rng.integers(1, 9)), len(content) - place)
    content[place : place + size] = rng.bytes(size) if rng.random() < 0.5 else b"\xff" * size
    files[name] = bytes(content)
    inside = sample.values[name][place : place + size].any()
    return f"{size} bytes of {name} overwritten at {place}", bool(inside)


def truncate(rng, sample, files, samples) -> tuple[str, bool]:
    name = pick(rng, files)
    size = place_in(rng, sample, name)
    files[name] = files[name][:size]
    return f"{name} cut to {size} bytes", False


def insert(rng, sample, files, samples) -> tuple[str, bool]:
    name = pick(rng, files)
    place, new = place_in(rng, sample, name), rng.bytes(int(rng.integers(1, 20)))
    files[name] = files[name][:place] + new + files[name][place:]
    return f"{len(new)} bytes put into {name} at {place}", False


def remove(rng, sample, files, samples) -> tuple[str, bool]:
    name = pick(rng, files)
    place, size = place_in(rng, sample, name), int(rng.integers(1, 20))
    files[name] = files[name][:place] + files[name][place + size :]
    return f"{size} bytes of {name} removed at {place}", False


def swap(rng, sample, files, samples) -> tuple[str, bool]:
    """Another file in a file's place: of this folder, or of one with other sizes."""
    others = [other for other in samples if other.name[-1] != sample.name[-1]]
    donor = files if rng.random() < 0.5 else others[rng.integers(len(others))].files
    name, other = pick(rng, files), pick(rng, donor)
    files[name] = donor[other]
    return f"{other} of {'itself' if donor is files else 'another'} in place of {name}", False


def drop(rng, sample, files, samples) -> tuple[str, bool]:
    name = pick(rng, files)
    del files[name]
    return f"{name} removed", False


def edit_json(rng, sample, files, samples) -> tuple[str, bool]:
    names = [name for name in files if name.endswith(".json")]
    name = names[rng.integers(len(names))]
    contents = json.loads(files[name])
    place, path = contents, []
    while True:
        keys = sorted(place)
        path.append(keys[rng.integers(len(keys))])
        if not isinstance(place[path[-1]], dict) or not place[path[-1]]:
            break
        place = place[path[-1]]
    chance, value = rng.random(), VALUES[rng.integers(len(VALUES))]
    if chance < 0.2:
        del place[path[-1]]
        value = "nothing"
    elif chance < 0.3:
        contents = value
    else:
        place[path[-1]] = value
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


# The process that loads


class Worker:
    """Loads folders in a process of its own, which is started anew when it has died or hangs."""

    def __init__(self):
        self.context = multiprocessing.get_context("spawn")
        self.start()

    def start(self) -> None:
        self.here, there = self.context.Pipe()
        self.process = self.context.Process(target=work, args=(there,), daemon=True)
        self.process.start()
        there.close()
        assert self.here.recv() == "ready"

    def stop(self) -> None:
        self.process.kill()
        self.process.join()

    def load(self, folder: Path) -> tuple[str, str]:
        """("loaded", digest of the values), ("refused", message), or what went wrong."""
        self.here.send(folder)
        try:
            if self.here.poll(SECONDS):
                return self.here.recv()
            problem = ("hang", f"no answer in {SECONDS:.0f} s")
        except EOFError:
            self.process.join()
            problem = ("crash", f"the process died with exit code {self.process.exitcode}")
        self.stop()
        self.start()
        return problem


def work(pipe: Connection) -> None:
    """Answers folders with what came of loading them."""
    from effcap.tools.cli.terminal import start_keras

    start_keras()
    import resource

    from effcap.tools import load_gpt2

    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY,) * 2)
    decoders: dict[str, SimpleNamespace] = {}
    pipe.send("ready")
    while True:
        folder = pipe.recv()
        if folder.name not in decoders:  # the first of a name is whole
            decoders[folder.name] = new_decoder(folder)
        captioner = decoders[folder.name]
        marks = [np.full(v.shape, 0.5) for v in captioner.decoder.weights]
        captioner.decoder.set_weights(marks)
        try:
            load_gpt2(captioner, folder)
            values = b"".join(np.asarray(v).tobytes() for v in captioner.decoder.weights)
            pipe.send(("loaded", hashlib.sha256(values).hexdigest()))
        except (ValueError, OSError) as error:
            same = all(
                np.array_equal(np.asarray(v), mark)
                for v, mark in zip(captioner.decoder.weights, marks, strict=True)
            )
            pipe.send(("refused" if same else "loaded in part", str(error)))
        except BaseException as error:
            pipe.send(("unclear error", f"{type(error).__name__}: {error}"))


def new_decoder(folder: Path) -> SimpleNamespace:
    """What `load_gpt2` needs of a captioner: a decoder of the folder's sizes."""
    from effcap.decoders.gpt2 import GPT2
    from effcap.tools import gpt2_hparams

    decoder = GPT2(**gpt2_hparams(folder))
    decoder.build()
    return SimpleNamespace(decoder=decoder)
