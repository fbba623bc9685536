"""Captioners exported as graphs of other runtimes: captions, manifests, photos and errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image, ImageOps

import effcap
from effcap.exports import graph_formats
from effcap.exports.exported_captioner import RUNNERS, export_captioner
from effcap.exports.exported_models import MemoryModel
from effcap.exports.graph_formats import FORMATS, check_size
from effcap.exports.runners import photos as runner_photos
from effcap.samplers import Beam, Greedy, Nucleus
from effcap.tools.cli import main
from helpers.captioners import eagerly
from helpers.exported import run_exported

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Keras exports these formats from TensorFlow"
)
PACKAGES = {"onnx": "tf2onnx", "litert": "ai_edge_litert", "openvino": "openvino"}
# Captions of the tiny preset end early, are cut, or repeat themselves, by these settings.
SAMPLER = Beam(
    num_beams=3, max_new_tokens=9, min_new_tokens=0, length_penalty=0.6, no_repeat_ngram_size=2
)


@pytest.fixture(scope="module")
def captioner(trained_run):
    return effcap.Captioner.from_preset(trained_run.folder / "last")


@pytest.fixture(scope="module")
def photos(trained_run) -> list[Path]:
    return sorted((trained_run.data / "photos").iterdir())[:4]


@pytest.fixture(scope="module")
def export(captioner, tmp_path_factory) -> Callable[[str], Path]:
    """Exports the tiny preset in a format, once."""
    folders: dict[str, Path] = {}

    def export(format: str) -> Path:
        pytest.importorskip(PACKAGES.get(format, "tensorflow"))
        if format not in folders:
            folder = tmp_path_factory.mktemp("exports") / format
            folders[format] = export_captioner(captioner, folder, format, sampler=SAMPLER)
        return folders[format]

    return export


def captions(captioner, photos, sampler) -> list[str]:
    with eagerly():
        return captioner.generate(photos, sampler)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_runners_without_keras_give_the_same_captions(format, export, captioner, photos):
    folder = export(format)
    assert run_exported(folder, *photos) == captions(captioner, photos, SAMPLER)
    names = ("max_new_tokens", "min_new_tokens", "no_repeat_ngram_size")
    greedy = Greedy(**{name: getattr(SAMPLER, name) for name in names})
    assert run_exported(folder, "--greedy", *photos) == captions(captioner, photos, greedy)


@pytest.mark.slow
def test_files_that_cannot_be_read_are_skipped(export, photos, tmp_path):
    folder = export("onnx")
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    given = [photos[0], tmp_path / "broken.jpg", tmp_path / "missing.jpg", photos[1]]
    assert run_exported(folder, *given) == run_exported(folder, *photos[:2])


@pytest.mark.slow
def test_a_suppressed_end_token_ends_captions_that_cannot_go_on(captioner, photos, tmp_path):
    pytest.importorskip("onnxruntime")
    eos = captioner.tokenizer.eos_id
    others = set(range(captioner.tokenizer.vocabulary_size)) - {eos}
    kept = sorted(others)[40:43]
    sampler = Greedy(
        max_new_tokens=6,
        no_repeat_ngram_size=1,
        suppress_tokens=tuple(others - set(kept)) + (eos,),
    )
    folder = export_captioner(captioner, tmp_path, "onnx", sampler=sampler)
    expected = captions(captioner, photos, sampler)
    assert run_exported(folder, *photos) == expected
    assert all(len(captioner.tokenizer.encode(text)) <= 3 for text in expected)


@pytest.mark.slow
def test_signatures_caption_the_bytes_of_photos(export, captioner, photos):
    import tensorflow as tf

    signatures = tf.saved_model.load(str(export("savedmodel") / "saved_model")).signatures
    data = tf.constant([path.read_bytes() for path in photos])
    found = signatures["beam"](photos=data)
    with eagerly():
        expected = captioner.generate(photos, SAMPLER, details=True)
    for row, (best, *_) in enumerate(expected):
        length = int(found["lengths"][row])
        assert tuple(found["tokens"][row, :length].numpy().tolist()) == best.tokens
        assert float(found["scores"][row]) == pytest.approx(best.score, abs=1e-3)
    greedy = signatures["greedy"](photos=data[:1])
    assert greedy["tokens"].shape == (1, SAMPLER.max_new_tokens)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "litert", "openvino"])
def test_prefixes_and_output_vocabularies_are_part_of_an_export(
    format, captioner, photos, tmp_path
):
    pytest.importorskip(PACKAGES[format])
    captioner.prefix = "a dog"
    captioner.restrict_vocabulary(["a dog runs on the beach with two children"])
    try:
        folder = export_captioner(captioner, tmp_path, format, sampler=SAMPLER)
        expected = captions(captioner, photos, SAMPLER)
        assert run_exported(folder, *photos) == expected
        assert all(caption.startswith("a dog") for caption in expected)
    finally:
        captioner.prefix = ""
        captioner.restrict_vocabulary(None)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "litert", "openvino"])
def test_int8_takes_less_space_and_writes_captions(format, export, captioner, photos, tmp_path):
    whole = export(format)
    small = export_captioner(captioner, tmp_path, format, "int8", SAMPLER)
    assert json.loads((small / "manifest.json").read_text())["dtype"] == "int8"
    assert len(run_exported(small, *photos)) == len(photos)
    if format == "litert":
        sizes = [(folder / "decoder.tflite").stat().st_size for folder in (small, whole)]
        assert sizes[0] < sizes[1]
    elif format == "onnx":
        import onnx

        for folder, expected in ((small, True), (whole, False)):
            weights = onnx.load(folder / "decoder.onnx").graph.initializer
            rounded = [x for x in weights if x.data_type == onnx.TensorProto.INT8 and x.dims]
            assert bool(rounded) == expected


@pytest.mark.slow
def test_onnx_graphs_have_operators_of_every_runtime_only(export):
    onnx = pytest.importorskip("onnx")
    folder = export("onnx")
    for name in ("encoder", "keys_values", "decoder"):
        model = onnx.load(folder / f"{name}.onnx")
        onnx.checker.check_model(model)
        assert {x.version for x in model.opset_import if not x.domain} == {17}
        kinds = {(node.domain, node.op_type) for node in model.graph.node}
        assert kinds and all(not domain for domain, _ in kinds)
        assert not {"Loop", "If", "Scan"} & {kind for _, kind in kinds}


@pytest.mark.slow
def test_the_command_exports_a_preset(trained_run, tmp_path, capsys, photos):
    pytest.importorskip("onnxruntime")
    preset = trained_run.folder / "last"
    words = ["export", preset, tmp_path / "out", "--format", "onnx", "--sampler", "greedy"]
    assert main([*map(str, words), "--set", "sampler.max_new_tokens=5"]) == 0
    assert "next: python" in capsys.readouterr().err
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["search"]["num_beams"] == 1 and manifest["search"]["max_new_tokens"] == 5
    assert manifest["graphs"]["encoder"]["images"][1][-1] == 3
    assert set(manifest["files"]) <= {path.name for path in (tmp_path / "out").iterdir()}
    expected = captions(effcap.Captioner.from_preset(preset), photos, Greedy(max_new_tokens=5))
    assert run_exported(tmp_path / "out", *photos) == expected


def test_the_runner_has_at_most_100_lines():
    assert len((RUNNERS / "runner.py").read_text().splitlines()) <= 100


def example_photo(kind: str, folder: Path) -> Path:
    """Writes a photo of 211 x 157 pixels with smooth colors."""
    y, x = np.mgrid[:157, :211].astype(float)
    channels = [127 + 120 * np.sin(x / 17 + y / 31 + shift) for shift in range(3)]
    image = Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))
    path = folder / f"photo.{'jpg' if kind.isdigit() or kind == 'large' else 'png'}"
    if kind.isdigit() or kind == "tiff":
        exif = Image.Exif()
        exif[274] = 6 if kind == "tiff" else int(kind)
        path = path.with_suffix(".tif") if kind == "tiff" else path
        image.save(path, exif=exif, quality=95)
        return path
    if kind == "large":
        image.resize((1300, 900)).save(path)
    elif kind == "alpha":
        image.putalpha(ImageOps.grayscale(image))
        image.save(path)
    else:
        image.convert({"gray": "L", "palette": "P", "color": "RGB"}[kind]).save(path)
    return path


KINDS = [*map(str, range(1, 9)), "large", "alpha", "gray", "palette", "color"]


@pytest.mark.parametrize("kind", [*KINDS, "tiff", "9"])
def test_the_runner_loads_photos_as_effcap_does(kind, tmp_path):
    path = example_photo(kind, tmp_path)
    for fit in ("squash", "crop", "pad"):
        for resample in (None, "bilinear"):
            photo = {"image_size": [64, 48], "fit": fit, "resample": resample}
            received = runner_photos.load_photo(path, photo)
            np.testing.assert_array_equal(
                received, effcap.load_photo(path, (64, 48), fit, resample), f"{fit} {resample}"
            )


def test_the_runner_refuses_photos_of_16_bits(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((9, 9), 4000, np.uint16)).save(path)
    with pytest.raises(ValueError, match="expected 8 bits"):
        photo = {"image_size": [8, 8], "fit": "squash", "resample": None}
        runner_photos.load_photo(path, photo)


@pytest.mark.parametrize("kind", KINDS)
def test_photos_are_resized_in_the_graph_as_by_pillow(kind, tmp_path):
    from effcap.exports.photo_bytes import load_photo_bytes

    path = example_photo(kind, tmp_path)
    settings = [("squash", None), ("crop", "bicubic"), ("pad", "lanczos"), ("crop", "bilinear")]
    settings += [("squash", name) for name in ("nearest", "box", "hamming")]
    for fit, resample in settings if kind in ("1", "6", "alpha") else settings[:2]:
        received = load_photo_bytes(path.read_bytes(), (64, 48), fit, resample).numpy()
        expected = effcap.load_photo(path, (64, 48), fit, resample).astype(int)
        difference = np.abs(received - expected)
        if kind == "palette":  # TensorFlow decodes it to other colors by a step
            assert difference.mean() < 1
            continue
        assert difference.max() <= 1, (fit, resample)
        if kind != "large":  # versions of Pillow round its reduction by whole factors differently
            assert difference.mean() < 0.05, (fit, resample)


def test_bytes_that_only_look_like_exif_turn_nothing(tmp_path):
    from effcap.exports.photo_bytes import exif_orientation

    path = example_photo("1", tmp_path)
    data = path.read_bytes()
    start = data.index(b"Exif\0\0")
    comment = b"\xff\xfe\0\x22Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0"
    damaged = [data[:2] + comment + data[2 : start - 4] + data[start + 30 :]]
    damaged += [data[: start + 6], data[:start] + b"Exif\0\0II*\0" + b"\xff" * 40, b"", b"\xff\xd8"]
    for broken in damaged:
        assert int(exif_orientation(broken)) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"format": "coreml"}, "Expected a format out of savedmodel, litert, onnx, openvino"),
        ({"format": "savedmodel", "dtype": "int8"}, "Expected a dtype of the format savedmodel"),
        ({"format": "litert", "sampler": Nucleus()}, "beam search and greedy decoding"),
        ({"format": "litert", "sampler": Beam(include=["dog"])}, "The runner has no include="),
        ({"format": "litert", "sampler": Greedy(repetition_penalty=2.0)}, "repetition_penalty=2.0"),
    ],
)
def test_what_cannot_be_exported_is_refused(arguments, message, captioner, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_captioner(captioner, tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_captioners_in_bfloat16_are_refused(trained_run, tmp_path):
    preset = trained_run.folder / "last"
    captioner = effcap.Captioner.from_preset(preset, precision="bfloat16")
    with pytest.raises(ValueError, match="Expected a captioner in float32"):
        export_captioner(captioner, tmp_path, "litert")


def test_models_too_large_for_a_file_are_refused(captioner, monkeypatch):
    model = MemoryModel(captioner.encoder)
    monkeypatch.setattr(graph_formats, "LARGEST", 1000)
    with pytest.raises(ValueError, match="export it as openvino or savedmodel"):
        check_size(model, "onnx")


def test_a_missing_package_is_named(captioner, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'effcap\[onnx\]'"):
        export_captioner(captioner, tmp_path, "onnx")


def test_folders_of_something_else_are_left_alone(captioner, trained_run, tmp_path):
    preset = trained_run.folder / "last"
    before = {path: path.read_bytes() for path in preset.iterdir() if path.is_file()}
    with pytest.raises(FileExistsError, match="holds no earlier export"):
        export_captioner(captioner, preset, "litert")
    assert before == {path: path.read_bytes() for path in preset.iterdir() if path.is_file()}
    (tmp_path / "manifest.json").write_text('{"runtime": "onnx", "files": [".."]}')
    with pytest.raises(FileExistsError, match="holds no earlier export"):
        export_captioner(captioner, tmp_path, "litert")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="Expected a folder"):
        export_captioner(captioner, tmp_path / "file", "litert")


@pytest.mark.slow
def test_a_new_export_replaces_the_files_of_an_earlier_one(captioner, tmp_path):
    pytest.importorskip("openvino")
    for format in ("litert", "openvino"):
        export_captioner(captioner, tmp_path, format, sampler=SAMPLER)
        (tmp_path / "notes.txt").write_text("of the user")
    kinds = {path.suffix for path in tmp_path.iterdir()}
    assert kinds == {".xml", ".bin", ".json", ".py", ".txt"}


def test_an_export_that_fails_leaves_the_earlier_one(captioner, tmp_path, monkeypatch):
    manifest = {"effcap": "", "format": 1, "runtime": "onnx"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    fail = partial(pytest.fail, "cut off", False)
    monkeypatch.setattr(graph_formats.LiteRtWriter, "add", lambda *_: fail())
    with pytest.raises(pytest.fail.Exception):
        export_captioner(captioner, tmp_path, "litert")
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
