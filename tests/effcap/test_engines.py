"""Captioners compiled for OpenVINO: captions, folders, precisions and errors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

import effcap
from effcap.conversion import compiled_preset
from effcap.engines import openvino_models, openvino_weights
from effcap.precision import ENGINES
from effcap.samplers import Beam, Greedy, Nucleus
from effcap.utils.quantization import quantize_rows
from helpers.captioners import CAPTIONS, eagerly
from helpers.cli_process import environment

pytest.importorskip("openvino")

SAMPLERS = {
    "greedy": Greedy(max_new_tokens=6, repetition_penalty=1.3, suppress_tokens=(7, 90)),
    "nucleus": Nucleus(max_new_tokens=6, num_captions=3, seed=2, top_k=20, temperature=1.4),
    "diverse": Beam(
        num_beams=4, num_captions=3, num_beam_groups=2, diversity_penalty=0.4, max_new_tokens=6
    ),
    "words": Beam(num_beams=3, max_new_tokens=8, include=["dog"], exclude=["grass", "the"]),
    "ends": Beam(num_beams=3, min_new_tokens=0, length_penalty=2.0, max_new_tokens=6),
}


def photos(captioner, rows: int = 3) -> dict[str, np.ndarray]:
    shape = (rows, *captioner.encoder.image_size, 3)
    return {"images": np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)}


def texts_and_scores(groups) -> tuple[list, np.ndarray]:
    flat = [caption for group in groups for caption in group]
    return [caption.tokens for caption in flat], np.array([caption.score for caption in flat])


@pytest.fixture(scope="module")
def preset(trained_run, tmp_path_factory):
    """A trained preset, whose captions end, with a folder to compile it in."""
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    return shutil.copytree(trained_run.folder / "last", folder)


@pytest.fixture(scope="module")
def pair(preset):
    """The captioner of Keras, and the same in OpenVINO."""
    return effcap.Captioner.from_preset(preset), effcap.load_compiled(preset)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_finds_the_same_captions(pair, name):
    captioner, compiled = pair
    with eagerly():
        expected = captioner.generate_batch(photos(captioner), SAMPLERS[name], prefix="a dog")
    received = compiled.generate_batch(photos(captioner), SAMPLERS[name], prefix="a dog")
    tokens, scores = texts_and_scores(received)
    assert tokens == texts_and_scores(expected)[0]
    np.testing.assert_allclose(scores, texts_and_scores(expected)[1], atol=1e-3)


@pytest.mark.slow
def test_rows_with_prefixes_of_different_lengths_do_not_disturb_each_other(pair):
    compiled, prefixes = pair[1], ["a", "two dogs play", None]
    together = compiled.generate_batch(photos(compiled), "beam", prefix=prefixes)
    for row, prefix in enumerate(prefixes):
        inputs = {"images": photos(compiled)["images"][row : row + 1]}
        alone = compiled.generate_batch(inputs, "beam", prefix=prefix)
        assert alone[0][0].tokens == together[row][0].tokens


@pytest.mark.slow
def test_captions_are_those_of_an_output_vocabulary(pair, tmp_path):
    captioner, _ = pair
    captioner.restrict_vocabulary(CAPTIONS[:2])
    try:
        compiled = captioner.compile_for("openvino", folder=tmp_path)
        sampler = Beam(num_beams=3, max_new_tokens=6, repetition_penalty=1.2)
        with eagerly():
            expected = captioner.generate_batch(photos(captioner), sampler, prefix="a zebra q")
        received = compiled.generate_batch(photos(captioner), sampler, prefix="a zebra q")
        assert texts_and_scores(received)[0] == texts_and_scores(expected)[0]
        scores = (texts_and_scores(one)[1] for one in (received, expected))
        np.testing.assert_allclose(*scores, atol=1e-3)
        allowed = set(captioner.output_tokens)
        outside = next(
            x for x in ("zebra", "xylophone") if not set(captioner.tokenizer.encode(x)) <= allowed
        )
        with pytest.raises(ValueError, match="outside of the output vocabulary"):
            compiled.generate_batch(photos(captioner), Beam(include=[outside]))
    finally:
        captioner.restrict_vocabulary(None)


@pytest.mark.slow
def test_a_preset_is_compiled_once_and_again_when_its_weights_change(preset, pair, capsys):
    folder = preset / "openvino-float32"
    before = (folder / "compiled.json").stat().st_mtime_ns
    effcap.load_compiled(preset)
    assert (folder / "compiled.json").stat().st_mtime_ns == before
    copied = shutil.copytree(preset, preset.with_name("copied"), copy_function=shutil.copy)
    sources = list(compiled_preset.preset_files(copied))
    assert compiled_preset.is_current(copied / folder.name, sources)
    (copied / "config.json").write_text((copied / "config.json").read_text() + " ")
    assert not compiled_preset.is_current(copied / folder.name, sources)


@pytest.mark.slow
def test_commands_with_openvino_start_no_tensorflow(preset, pair, trained_run):
    code = "import sys; from effcap.tools.cli import main; code = main(sys.argv[1:]); "
    code += "sys.exit(code or 'tensorflow' in sys.modules)"
    photo = next((trained_run.data / "photos").iterdir())
    words = ["caption", photo, "--model", preset, "--engine", "openvino"]
    command = [sys.executable, "-c", code, *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{photo}\t{pair[1].generate(photo)}\n"


def test_a_preset_to_be_compiled_requires_tensorflow(preset, tmp_path, monkeypatch):
    folder = shutil.copytree(preset, tmp_path / "mine", ignore=shutil.ignore_patterns("openvino*"))
    monkeypatch.setattr("effcap.conversion.compiled_preset.BACKEND", "no_tensorflow")
    with pytest.raises(ImportError, match="pip install tensorflow.*copy mine/openvino-int8"):
        effcap.load_compiled(folder, precision="int8")
    assert not (folder / "openvino-int8").exists()


@pytest.mark.slow
def test_norms_and_attention_over_the_cache_are_single_operations_without_copies(pair, tmp_path):
    import openvino

    captioner, _ = pair
    captioner.compile_for("openvino", folder=tmp_path)
    model = openvino.Core().read_model(tmp_path / "decoder.xml")
    kinds = Counter(node.get_type_name() for node in model.get_ordered_ops())
    layers = captioner.decoder.num_layers
    assert kinds["SquaredDifference"] == kinds["Tanh"] == 0
    assert kinds["Gelu"] == layers
    assert kinds["MVN"] == 3 * layers + 1  # of self-attention, fusion and MLP, and the last one
    assert kinds["ScaledDotProductAttention"] == layers
    assert kinds["ReadValue"] == kinds["Assign"] == 2 * layers
    assert not any("cache" in port.any_name for port in (*model.inputs, *model.outputs))


@pytest.mark.slow
def test_int8_weights_give_close_scores(pair, tmp_path, monkeypatch):
    captioner, compiled = pair
    monkeypatch.setattr(openvino_weights, "MIN_SIZE", 64)  # the matrices are small
    small = captioner.compile_for("openvino", "int8", tmp_path)
    full_size = sum(4 * np.prod(weight.shape) for weight in captioner.decoder.weights)
    assert (tmp_path / "decoder.bin").stat().st_size < 0.5 * full_size
    tokens = texts_and_scores(compiled.generate_batch(photos(captioner), "greedy"))
    received = texts_and_scores(small.generate_batch(photos(captioner), "greedy"))
    np.testing.assert_allclose(received[1], tokens[1], rtol=0.1)
    assert "int8" in repr(small)


def test_rows_are_rounded_to_127_steps_of_their_largest_value():
    matrix = np.random.default_rng(0).normal(size=(5, 64)).astype("float32")
    matrix[3] = 0
    rows, scales = quantize_rows(matrix)
    assert rows.dtype == np.int8
    np.testing.assert_allclose(scales[:3, 0], np.abs(matrix[:3]).max(axis=1) / 127, rtol=1e-6)
    assert (np.abs(rows * scales - matrix) <= scales / 2 + 1e-7).all()


@pytest.mark.parametrize(
    "engine, precision, message",
    [
        ("tensorrt", "float32", "Expected an engine out of keras, openvino"),
        ("openvino", "float16", "Expected a precision of the engine openvino"),
        ("keras", "float32", "Keras runs a captioner as it is"),
    ],
)
def test_wrong_engines_and_precisions_are_refused(captioner, engine, precision, message):
    with pytest.raises(ValueError, match=message):
        captioner.compile_for(engine, precision)


def test_every_precision_of_openvino_has_its_arithmetic():
    assert tuple(openvino_models.PRECISIONS) == ENGINES["openvino"]


def test_a_folder_without_a_compiled_captioner_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"compiled\.json"):
        effcap.CompiledCaptioner(tmp_path)


def test_a_folder_of_another_version_is_refused(tmp_path):
    config = {"encoder": {}, "decoder": {}, "precision": "float32"}
    (tmp_path / "compiled.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="another version of EffCap: compile it again"):
        effcap.CompiledCaptioner(tmp_path)


def test_a_damaged_folder_is_refused(tmp_path):
    (tmp_path / "compiled.json").write_text(
        json.dumps({"format": 2, "encoder": {}, "decoder": 1, "precision": ""})
    )
    with pytest.raises(ValueError, match="damaged"):
        effcap.CompiledCaptioner(tmp_path)
