"""Compiled captioners of presets, which are kept on disk so that they are compiled only once."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import keras

from effcap.captioner import Captioner
from effcap.config import read_json
from effcap.engines.compiled_captioner import (
    BACKEND,
    CONFIG,
    FORMAT,
    CompiledCaptioner,
    check_compiled,
    compile_captioner,
)
from effcap.preset_files import BASE, OWN_FILES, RECORD, TRANSFORMERS_FILES
from effcap.presets import find_base, portable_name, preset_folder, preset_name
from effcap.utils.progress import print_line
from effcap.version import __version__

CODE = "import sys; from effcap.conversion.compiled_preset import load_compiled as load; "
CODE += "load(*sys.argv[1:4])"


def load_compiled(
    preset: str | PathLike, engine: str = "openvino", precision: str = "float32"
) -> CompiledCaptioner:
    """Loads the captioner of a preset for an engine, and compiles it the first time.

    The compiled captioner is kept in the folder of the preset, or in the cache folder of the user
    for a shipped one and if that cannot be written. It is compiled again when a file of the preset
    has changed. Once it is there, neither TensorFlow nor the weights of the preset are loaded.

    Args:
        preset: as in `Captioner.from_preset`.
        engine, precision: as in `Captioner.compile_for`.

    Raises:
        FileNotFoundError: there is no such preset, or a file of it is missing.
        ImportError: the engine is not installed; or TensorFlow is not, and the preset is not
            compiled.
        OSError: there is too little disk space.
        ValueError: a file is damaged, or there is no such engine or precision.
    """
    check_compiled(engine, precision)
    folder = preset_folder(preset)
    sources = list(preset_files(folder))
    found = [path for path in compiled_folders(folder, engine, precision) if path.is_dir()]
    for path in found:
        if is_current(path, sources):
            return CompiledCaptioner(path)
    return _compile(folder, engine, precision, sources)


def _compile(folder: Path, engine: str, precision: str, sources: list[Path]) -> CompiledCaptioner:
    name = preset_name(folder)
    if importlib.util.find_spec(BACKEND) is None:
        raise ImportError(
            f"{folder} is not compiled for {engine} in {precision}, or was compiled by another "
            f"version of EffCap or from other files, and TensorFlow, which compiles it, is not "
            f"installed: pip install tensorflow; or compile it elsewhere, by effcap.load_compiled, "
            f"and copy {name}/{engine}-{precision} with the preset"
        )
    print_line(f"compiling {name} for {engine} in {precision}, once")
    if keras.backend.backend() != BACKEND:
        source = str(Path(__file__).resolve().parents[2])
        search = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": search}
        command = [sys.executable, "-c", CODE, str(folder), engine, precision]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        if result.returncode:
            last = (result.stderr.strip() or "it was killed").splitlines()[-1]
            raise ValueError(f"Cannot compile {folder} for {engine}: {last}")
        return load_compiled(folder, engine, precision)
    captioner = Captioner.from_preset(folder)
    key = {"files": file_states(sources), "fingerprint": fingerprint(sources)}
    for path in compiled_folders(folder, engine, precision):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except PermissionError:
            continue
        if os.access(path, os.W_OK):
            return compile_captioner(captioner, engine, precision, path, key)
    return captioner.compile_for(engine, precision)


def compiled_folders(folder: Path, engine: str, precision: str) -> list[Path]:
    """Returns where the compiled captioner of a preset may be: in its folder, or in the cache.

    Shipped presets, which belong to the installation, and those in the hub's cache have it in the
    user's cache only.
    """
    name = f"{engine}-{precision}"
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    short = preset_name(folder.resolve()).replace("/", "--")
    cached = Path(root) / "effcap" / f"{short}-{key}" / name
    return [folder / name, cached] if portable_name(folder) is None else [cached]


def preset_files(folder: Path) -> Iterator[Path]:
    """Yields the files that a captioner is loaded from, those of the base of an adapter too."""
    for path in sorted(folder.iterdir()):
        is_read = path.name in OWN_FILES or TRANSFORMERS_FILES.fullmatch(path.name)
        if is_read and path.is_file() and path.name != RECORD:
            yield path
    config = read_json(folder / "config.json")
    if BASE in config:
        yield from preset_files(find_base(folder, config))


def is_current(path: Path, sources: list[Path]) -> bool:
    """Returns whether a compiled captioner was made by this version from files as they are now."""
    if not (path / CONFIG).is_file():
        return False
    config = read_json(path / CONFIG)
    key = config.get("source") or {}
    if config.get("effcap") != __version__ or config.get("format") != FORMAT:
        return False
    # Files that were copied have other times, and the same contents.
    return key.get("files") == file_states(sources) or key.get("fingerprint") == fingerprint(
        sources
    )


def file_states(sources: list[Path]) -> list[list[Any]]:
    """Returns the name, size and time of modification of files."""
    states = [(path, path.stat()) for path in sources]
    return [[path.name, state.st_size, state.st_mtime_ns] for path, state in states]


def fingerprint(sources: list[Path]) -> str:
    """Returns a hash of the names and contents of files."""
    digest = hashlib.sha256()
    for path in sources:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
