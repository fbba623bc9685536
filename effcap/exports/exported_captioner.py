"""Exports captioners as graphs of other runtimes, with a manifest and a runner beside them."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import fields, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from effcap.config import read_json
from effcap.engines.openvino_models import output_tokens
from effcap.exports.exported_models import (
    ExportedParts,
    KeyValueModel,
    MemoryModel,
    ScoredDecoderModel,
)
from effcap.exports.graph_formats import FORMATS, GraphFormat
from effcap.exports.saved_model import SAVED_MODEL
from effcap.generation_call import suppress_undecodable
from effcap.samplers import Beam, Greedy, Sampler
from effcap.utils.files import replace_file, write_text_atomically
from effcap.utils.progress import ProgressBar
from effcap.version import __version__

if TYPE_CHECKING:
    from effcap.captioning import CaptioningModel

MANIFEST, TOKENIZER = "manifest.json", "tokenizer.json"
RUNNERS = Path(__file__).parent / "runners"
FORMAT = 1  # of the folder
BACKEND = "tensorflow"  # by which Keras writes all formats
GRAPHS, SUFFIXES = ("encoder", "keys_values", "decoder"), (".onnx", ".tflite", ".xml", ".bin")
SEARCH_FIELDS = ("max_new_tokens", "min_new_tokens", "no_repeat_ngram_size")


def export_captioner(
    captioner: CaptioningModel,
    folder: str | PathLike,
    format: str = "onnx",
    dtype: str = "float32",
    sampler: Sampler | None = None,
) -> Path:
    """Exports a captioner for a runtime that needs neither Keras nor EffCap.

    Writes three graphs, "encoder" (photos or other inputs to memory), "keys_values" (of memory, for
    each layer, computed once per photo) and "decoder" (a step with caches), all with a free number
    of rows; and `manifest.json` with shapes, tokens and preprocessing, `tokenizer.json`, and a
    runner, `python run.py photo.jpg`. The format "savedmodel" also has the signatures "greedy" and
    "beam", from the bytes of photos to tokens.

    Args:
        captioner: the captioner, with a tokenizer.
        folder: folder to write; an earlier export in it is replaced, with changes of its runner.
        format: "savedmodel", "litert", "onnx" (which requires `pip install 'effcap[onnx]'`) or
            "openvino" (`pip install 'effcap[openvino]'`).
        dtype: "float32" for the same captions, or "int8" for weights in 8 bits, with which some
            captions differ.
        sampler: `Beam` or `Greedy` whose settings the runner takes. Default the captioner's own,
            or beam search with its defaults.

    Returns:
        The folder.

    Raises:
        ImportError: what the format requires is not installed.
        OSError: the folder cannot be written, or holds something else than an earlier export.
        ValueError: there is no such format or type, the captioner has no tokenizer or is not in
            float32, Keras runs on another backend than TensorFlow, or the runner cannot do what
            the sampler asks for.

    Example:
        >>> captioner = effcap.Captioner.from_preset("flickr8k-lite0")
        >>> effcap.export_captioner(captioner, "dogs-onnx", "onnx")
    """
    kind, tokenizer = check_format(format, dtype), captioner.tokenizer
    if tokenizer is None:
        raise ValueError("This captioner has no tokenizer, so it cannot generate text.")
    if captioner.decoder.compute_dtype != "float32":
        raise ValueError(
            f"Expected a captioner in float32. Received: {captioner.decoder.compute_dtype}"
        )
    path = Path(folder)
    earlier = earlier_files(path)
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path, prefix=".new-") as temporary:
        new = Path(temporary)
        parts = write_graphs(captioner, new, kind, dtype, sampler)
        (new / TOKENIZER).write_text(tokenizer.to_json(), encoding="utf-8")
        files = sorted(str(file.name) for file in new.iterdir())
        manifest = {"effcap": __version__, "format": FORMAT, "runtime": format, "dtype": dtype}
        manifest |= {"files": files, **describe(parts)}
        (new / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        sources = {"runner": "run", "photos": "photos", kind.runner: "graphs"}
        for source, name in sources.items():
            shutil.copyfile(RUNNERS / f"{source}.py", new / f"{name}.py")
        # Until all files are there, the manifest only says that this is an export.
        started = {name: manifest[name] for name in ("effcap", "format", "runtime")}
        write_text_atomically(path / MANIFEST, json.dumps(started))
        for name in earlier:
            remove(path / name)
        for file in sorted(new.iterdir(), key=lambda file: file.name == MANIFEST):
            if file.is_dir():
                file.rename(path / file.name)
            else:
                replace_file(file, path / file.name)
    return path


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def earlier_files(folder: Path) -> list[str]:
    """Returns the names that graphs of an earlier export in a folder may have.

    Raises:
        FileExistsError: the folder holds something else.
        NotADirectoryError: it is a file.
    """
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise NotADirectoryError(f"Expected a folder to export to. Received: the file {folder}")
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    is_export = isinstance(manifest, dict) and {"effcap", "format", "runtime"} <= set(manifest)
    if is_export:
        return [f"{graph}{suffix}" for graph in GRAPHS for suffix in SUFFIXES] + [SAVED_MODEL]
    if any(not x.name.startswith(".") for x in folder.iterdir()):
        raise FileExistsError(
            f"{folder} is not empty, and holds no earlier export: choose another folder"
        )
    return []


def check_format(format: str, dtype: str) -> GraphFormat:
    """Returns a format that captioners can be exported in.

    Raises:
        ImportError: what the format requires is not installed.
        ValueError: there is no such format or type, or Keras runs on another backend.
    """
    if format not in FORMATS:
        raise ValueError(f"Expected a format out of {', '.join(FORMATS)}. Received: {format!r}")
    kind = FORMATS[format]
    if dtype not in kind.dtypes:
        raise ValueError(
            f"Expected a dtype of the format {format} out of {', '.join(kind.dtypes)}. "
            f"Received: {dtype!r}"
        )
    kind.check()
    if keras.backend.backend() != BACKEND:
        raise ValueError(
            f"Exports require KERAS_BACKEND={BACKEND}. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    return kind


def write_graphs(
    captioner: CaptioningModel, folder: Path, kind: GraphFormat, dtype: str, sampler: Sampler | None
) -> ExportedParts:
    """Writes the graphs of a captioner, and returns what they are made of."""
    tokenizer = captioner.tokenizer
    assert tokenizer is not None
    prompt = [tokenizer.bos_id, *tokenizer.encode_prefix(captioner.prefix)]
    search = search_of(captioner.find_sampler(sampler, len(prompt) - 1))
    suppressed = {*suppress_undecodable(search, captioner.decoder, tokenizer).suppress_tokens}
    suppressed.discard(tokenizer.eos_id)  # which ends captions that cannot go on
    writer = kind.writer(folder, dtype)
    with ProgressBar("exporting", 3) as progress:

        def add(name: str, model: Any) -> Any:
            writer.add(name, model)
            progress.advance(name)
            return model

        encoder = add("encoder", MemoryModel(captioner.encoder))
        keys_values = add("keys_values", KeyValueModel(captioner.decoder, encoder.memory_specs))
        specs, outputs = keys_values.key_value_specs, output_tokens(captioner)
        decoder = ScoredDecoderModel(captioner.decoder, specs, outputs, suppressed)
        add("decoder", decoder)
        parts = ExportedParts(captioner, encoder, keys_values, decoder, search, prompt)
        writer.close(parts)
    return parts


def search_of(sampler: Sampler) -> Beam | Greedy:
    """Returns a sampler that the runner can do.

    Raises:
        ValueError: it cannot.
    """
    advice = "Pass sampler=effcap.Beam(...) or effcap.Greedy(...), --sampler beam or greedy"
    if not isinstance(sampler, Beam | Greedy):
        raise ValueError(f"The runner has beam search and greedy decoding. {advice}: {sampler}")
    plain = type(sampler)(
        **{name: getattr(sampler, name) for name in (*SEARCH_FIELDS, "suppress_tokens")}
    )
    if isinstance(sampler, Beam):
        own = {name: getattr(sampler, name) for name in ("num_beams", "length_penalty")}
        plain = replace(plain, **own)
    others = [
        f"{field.name}={getattr(sampler, field.name)!r}"
        for field in fields(sampler)
        if getattr(sampler, field.name) != getattr(plain, field.name)
        and field.name != "num_captions"  # it writes the best
    ]
    if others:
        raise ValueError(f"The runner has no {', '.join(others)}. {advice} without it")
    return plain


def describe(parts: ExportedParts) -> dict[str, Any]:
    """Returns what a runtime has to know about the graphs."""
    captioner, encoder, decoder = parts.captioner, parts.captioner.encoder, parts.captioner.decoder
    tokenizer, sampler = captioner.tokenizer, parts.sampler
    assert tokenizer is not None
    photo = None
    if "images" in encoder.input_keys:
        photo = {
            "image_size": list(encoder.image_size),
            "fit": encoder.fit,
            "resample": encoder.resample,
        }
    beams = sampler.num_beams if isinstance(sampler, Beam) else 1
    penalty = sampler.length_penalty if isinstance(sampler, Beam) else 1.0
    models: dict[str, Any] = {
        "encoder": parts.encoder,
        "keys_values": parts.keys_values,
        "decoder": parts.decoder,
    }
    graphs = {
        name: {key: [spec.dtype, list(spec.shape)] for key, spec in model.signature()[0].items()}
        for name, model in models.items()
    }
    return {
        "kinds": {name: captioner.hparams()[name]["kind"] for name in ("encoder", "decoder")},
        "photo": photo,
        "inputs": list(graphs["encoder"]),
        "prompt": parts.prompt,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "end_text": tokenizer.eos_text,
        "removed": tokenizer.removed_pattern,
        "vocabulary_size": decoder.vocabulary_size,
        "search": {
            "num_beams": beams,
            "length_penalty": penalty,
            "suppress_eos": tokenizer.eos_id in sampler.suppress_tokens,
            **{name: getattr(sampler, name) for name in SEARCH_FIELDS},
        },
        "graphs": graphs,
    }
