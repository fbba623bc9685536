"""A captioner that an engine runs in place of Keras."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from effcap.caption_generator import CaptionGenerator
from effcap.config import read_json
from effcap.display import table_html
from effcap.engines.compiled_generation import CompiledGeneration
from effcap.engines.openvino_models import (
    FILES,
    OpenVinoModels,
    write_openvino,
)
from effcap.images import Fit, Resample
from effcap.precision import check_engine, check_openvino
from effcap.samplers.registry import from_config, to_config
from effcap.tokenizers.kinds import read_tokenizer
from effcap.utils.files import replace_file
from effcap.version import __version__

if TYPE_CHECKING:
    from effcap.captioning import CaptioningModel

CONFIG, TOKENIZER = "compiled.json", "tokenizer.json"
FORMAT = 2  # of the folder; others are compiled again
BACKEND = "tensorflow"  # by which Keras exports models with free shapes


@dataclass(frozen=True)
class CompiledEncoder:
    """Describes the encoder of a compiled captioner; the attributes are those of an encoder.

    Attributes:
        kind: kind in `effcap.encoders.registry.ENCODERS`.
        input_keys: names of the inputs.
        image_size: height and width of photos; None for other inputs.
        fit, resample: how photos are resized, as in `effcap.load_photo`.
        modalities: width of the features of each modality of a playlist; None for other inputs.
        feature_dim: width of region features; None for other inputs.
    """

    kind: str
    input_keys: tuple[str, ...]
    image_size: tuple[int, int] | None = None
    fit: Fit = "squash"
    resample: Resample | None = None
    modalities: dict[str, int] | None = None
    feature_dim: int | None = None


@dataclass(frozen=True)
class CompiledDecoder:
    """Describes the decoder of a compiled captioner; the attributes are those of `Decoder`."""

    kind: str
    vocabulary_size: int
    max_text_length: int
    prefix_length: int
    output_vocabulary: str | None


class CompiledCaptioner(CaptionGenerator):
    """A captioner that OpenVINO runs on the processor, without Keras and TensorFlow.

    It generates the same captions as the Keras captioner that it was made from, with the same
    samplers. It does not train, and a change of the Keras captioner does not change it.

    Args:
        folder: folder written by `compile_captioner`.

    Raises:
        FileNotFoundError: the folder holds no compiled captioner.
        ImportError: OpenVINO is not installed.
        ValueError: a file is damaged, or the folder was written by another version of EffCap.

    Example:
        >>> captioner = effcap.Captioner.from_preset("flickr8k-lite0")
        >>> fast = captioner.compile_for("openvino", precision="int8")
        >>> fast.generate("dog.jpg")
        'A brown dog runs through the grass.'
    """

    def __init__(self, folder: str | PathLike) -> None:
        check_openvino()
        path = Path(folder)
        if not (path / CONFIG).is_file():
            raise FileNotFoundError(
                f"Expected a folder of a compiled captioner, with {CONFIG}. Received: {path}"
            )
        config = read_json(path / CONFIG, ("encoder", "decoder", "precision"))
        if config.get("format") != FORMAT:
            raise ValueError(f"{path} was written by another version of EffCap: compile it again")
        try:
            self.encoder = CompiledEncoder(**_tuples(config["encoder"]))
            self.decoder = CompiledDecoder(**config["decoder"])
            self.precision, self.prefix = config["precision"], config["prefix"]
            self.sampler = None if config["sampler"] is None else from_config(config["sampler"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path / CONFIG} is damaged: {error}") from error
        self.tokenizer = read_tokenizer(path / TOKENIZER)
        models = OpenVinoModels(path, self.precision)
        self._generation = CompiledGeneration(models, self.decoder)

    def __repr__(self) -> str:
        kinds = f"{self.encoder.kind} and {self.decoder.kind}"
        return f"<CompiledCaptioner of {kinds}: openvino, {self.precision}>"

    def _repr_html_(self) -> str:
        """Returns what a notebook shows."""
        rows = {
            "engine": f"openvino, {self.precision}",
            "encoder": f"{self.encoder.kind}: {' or '.join(self.encoder.input_keys)}",
            "decoder": f"{self.decoder.kind}: {self.decoder.vocabulary_size} tokens",
            "sampler": self.sampler or "beam, with its defaults",
            "prefix": self.prefix,
        }
        return table_html("Compiled captioner", {k: value for k, value in rows.items() if value})


def compile_captioner(
    captioner: CaptioningModel,
    engine: str = "openvino",
    precision: str = "float32",
    folder: str | PathLike | None = None,
    source: Mapping[str, Any] | None = None,
) -> CompiledCaptioner:
    """Compiles a Keras captioner for an engine.

    Args:
        captioner: the captioner, with a tokenizer.
        engine: "openvino".
        precision: "float32", "bfloat16" or "int8".
        folder: folder to write, for `CompiledCaptioner(folder)`; files of an earlier one are
            replaced. Default a temporary one.
        source: recorded in the folder, to tell what it was made from.

    Raises:
        ImportError: OpenVINO is not installed.
        ValueError: there is no such engine or precision, or the captioner has no tokenizer or is
            not in float32.
    """
    check_compiled(engine, precision)
    if captioner.tokenizer is None:
        raise ValueError("This captioner has no tokenizer, so it cannot generate text.")
    if keras.backend.backend() != BACKEND:
        raise ValueError(
            f"compile_for requires KERAS_BACKEND={BACKEND}: load_compiled compiles presets from "
            f"other backends too. Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    if captioner.decoder.compute_dtype != "float32":
        raise ValueError(
            "Expected a captioner in float32, which is rounded to the precision of the engine. "
            f"Received: a captioner in {captioner.decoder.compute_dtype}"
        )
    if folder is None:
        # Once read, the files are no longer needed.
        with tempfile.TemporaryDirectory(prefix="effcap-", ignore_cleanup_errors=True) as temporary:
            return compile_captioner(captioner, engine, precision, temporary, source)
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path, prefix=".new-") as temporary:
        new = Path(temporary)
        write_openvino(captioner, new, precision)
        (new / TOKENIZER).write_text(captioner.tokenizer.to_json(), encoding="utf-8")
        config: dict[str, Any] = {"effcap": __version__, "engine": engine, "precision": precision}
        config |= {"format": FORMAT, "source": source, **_describe(captioner)}
        (new / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (path / CONFIG).unlink(missing_ok=True)
        for name in (*FILES, TOKENIZER, CONFIG):
            replace_file(new / name, path / name)
    return CompiledCaptioner(path)


def check_compiled(engine: str, precision: str) -> None:
    """Checks that captioners can be compiled for an engine, in a precision.

    Raises:
        ImportError: OpenVINO is not installed.
        ValueError: there is no such engine or precision.
    """
    check_engine(engine, precision)
    if engine == "keras":
        raise ValueError("Expected engine='openvino': Keras runs a captioner as it is")
    check_openvino()


def _describe(captioner: CaptioningModel) -> dict[str, Any]:
    """Returns the configuration of a compiled captioner."""
    encoder, decoder, kinds = captioner.encoder, captioner.decoder, captioner.hparams()
    optional = ("image_size", "fit", "resample", "modalities", "feature_dim")
    given = {name: getattr(encoder, name) for name in optional if hasattr(encoder, name)}
    keys = tuple(key for key in encoder.input_keys if key != "features")  # computed, not exported
    described = CompiledEncoder(kinds["encoder"]["kind"], keys, **given)
    sizes = CompiledDecoder(
        kinds["decoder"]["kind"],
        decoder.vocabulary_size,
        decoder.max_text_length,
        decoder.prefix_length,
        decoder.output_vocabulary,
    )
    sampler = None if captioner.sampler is None else to_config(captioner.sampler)
    return {
        "encoder": asdict(described),
        "decoder": asdict(sizes),
        "sampler": sampler,
        "prefix": captioner.prefix,
    }


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values with tuples in place of the lists of JSON."""
    return {k: tuple(value) if isinstance(value, list) else value for k, value in values.items()}
