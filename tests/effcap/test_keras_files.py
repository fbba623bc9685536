"""Tests that `.keras` files and exported models work where no module has been imported before."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import effcap
from effcap.captioner import Captioner
from effcap.export import export_signature
from effcap.trainers import TrainingOptions
from effcap.trainers.engine.optimizer import make_optimizer
from effcap.trainers.objectives.cross_entropy import CrossEntropy
from helpers.captioners import (
    example_batch,
    example_inputs,
    numpy,
    randomize,
    tiny_hparams,
)
from helpers.cli_process import ROOT, environment

DECORATOR = "keras.saving.register_keras_serializable"
EXACT = {"rtol": 0, "atol": 1e-5}


def run_python(script: str, *arguments: object, path: Path | None = None) -> None:
    """Runs a script in a new process, with `path` before the installed packages."""
    variables = environment()
    if path is not None:
        variables["PYTHONPATH"] = f"{path}:{variables['PYTHONPATH']}"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert process.returncode == 0, process.stderr


# Files of Keras in a new process

LOAD = """
import json, sys, zipfile
import numpy as np

folder, imports = sys.argv[1:]
exec(imports)
import effcap, keras

def config_of(path):
    with zipfile.ZipFile(path) as file:
        return json.loads(file.read("config.json"))

def check(logits, expected):
    np.testing.assert_allclose(keras.ops.convert_to_numpy(logits), expected, rtol=0, atol=1e-5)

for kind in ("keras", "trainers"):
    path, saved_again = f"{folder}/{kind}.keras", f"{folder}/{kind}-again.keras"
    config = config_of(path)
    for key in ("loss", "weighted_metrics"):
        keras.saving.deserialize_keras_object(config["compile_config"][key])
    arrays = np.load(f"{folder}/{kind}.npz")
    inputs = {key: arrays[key] for key in ("features", "tokens", "segments")}
    loaded = keras.saving.load_model(path)
    check(loaded(inputs), arrays["before"])
    loaded.save(saved_again)
    assert config_of(saved_again) == config
    assert int(loaded.optimizer.iterations) == 1
    loaded.run_eagerly = True  # tracing takes longer than a step
    loaded.train_on_batch(inputs, arrays["targets"], arrays["weights"])
    check(loaded(inputs), arrays["after"])
    assert type(loaded) is effcap.Captioner
    assert type(loaded.loss) is effcap.CaptionLoss
    assert keras.saving.get_registered_object("effcap>Captioner") is effcap.Captioner
    keras.saving.load_model(path, custom_objects={"effcap>CaptionLoss": effcap.CaptionLoss})
"""


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory, tokenizer) -> Path:
    """A folder with two captioners, saved after one step of training, and their next outputs."""
    folder = tmp_path_factory.mktemp("keras_files")
    for kind in ("keras", "trainers"):
        captioner = randomize(Captioner.from_hparams(tiny_hparams(), tokenizer))
        arguments = {"optimizer": keras.optimizers.AdamW(1e-2)}
        if kind == "trainers":  # as a training run does
            objective = CrossEntropy(label_smoothing=0.1)
            objective.build(captioner)
            options = TrainingOptions(ema_momentum=0.5)
            arguments = {
                "optimizer": make_optimizer(options, 100, captioner),
                "loss": objective.loss,
                "weighted_metrics": list(objective.weighted_metrics),
            }
        captioner.compile(**arguments, run_eagerly=True)  # tracing takes longer than the steps
        inputs, targets, weights = example_batch(captioner)
        captioner.train_on_batch(inputs, targets, weights)
        captioner.save(folder / f"{kind}.keras")
        before = numpy(captioner(inputs))
        captioner.train_on_batch(inputs, targets, weights)
        after = numpy(captioner(inputs))
        arrays = {**inputs, "targets": targets, "weights": weights}
        np.savez(folder / f"{kind}.npz", before=before, after=after, **arrays)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import effcap; assert 'keras' not in sys.modules; import keras",
        "import keras; import effcap.trainers",
        "import effcap.utils.lazy; from keras.saving import load_model",
        "from effcap import Beam",
    ],
)
def test_a_new_process_loads_and_trains_a_keras_file(keras_files, imports):
    run_python(LOAD, keras_files, imports)


def test_all_serializable_classes_of_the_model_have_stand_ins():
    serializable = {}
    for folder in ("samplers", "effcap"):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            module = "." + ".".join(parts[1:] if folder == "effcap" else parts)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and any(
                    ast.unparse(one) == f"{DECORATOR}('effcap')" for one in node.decorator_list
                ):
                    serializable[node.name] = module
    assert serializable == effcap._SERIALIZABLE


# The import hook, with a package named keras that imports in no time

HOOK = """
import importlib, importlib.util, json, os, sys, threading

def registered():
    import keras
    return {f"effcap>{name}" for name in names} <= set(keras.saving.get_custom_objects())

names = json.loads(sys.argv[1])
"""
HOOK_CASES = {
    "effcap first": "import effcap; assert 'keras' not in sys.modules; assert registered()",
    "keras first": "import keras, effcap; assert registered()",
    "keras.saving first": "import effcap, keras.saving; assert registered()",
    "an import that fails": """
import effcap
os.environ["BROKEN"] = "1"
for _ in range(2):
    try:
        import keras
    except ImportError as error:
        assert str(error) == "broken"
    else:
        raise AssertionError
assert "keras" not in sys.modules
del os.environ["BROKEN"]
assert registered()
""",
    "a search without an import": """
import effcap
spec = importlib.util.find_spec("keras")
assert "keras" not in sys.modules
assert spec.loader.is_package("keras") and "saving" in spec.loader.get_source("keras")
assert importlib.util.find_spec("keras.saving") and registered()
""",
    "other finders": """
class Finder:
    searching = False
    def find_spec(self, *arguments):
        if self.searching or arguments[0] != "keras":
            return None
        self.searching = True
        try:
            return importlib.util.find_spec(arguments[0])
        finally:
            self.searching = False
sys.meta_path.insert(0, Finder())
import effcap
sys.meta_path.insert(0, Finder())
assert registered()
""",
    "keras in another thread first": """
os.environ["SLOW"] = "1"
thread = threading.Thread(target=importlib.import_module, args=("keras",))
thread.start()
while "keras" not in sys.modules:
    pass
import effcap
assert registered() and not thread.join()
""",
    "many threads": """
os.environ["SLOW"] = "1"
import effcap
results = []
threads = [threading.Thread(target=lambda: results.append(registered())) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert results == [True] * 8
""",
    "reloaded modules": """
import inspect
import effcap
count = len(sys.meta_path)
importlib.reload(effcap)
assert len(sys.meta_path) == count and registered()
keras = sys.modules["keras"]
keras.saving.get_custom_objects().clear()
importlib.reload(keras)
assert registered()
assert "saving" in inspect.getsource(keras)
assert type(keras.__loader__) is type(keras.__spec__.loader) is type(json.__loader__)
""",
    "classes that are registered already": """
import keras
registry = keras.saving.get_custom_objects()
registry["effcap>Captioner"] = dict
import effcap
assert registered() and registry["effcap>Captioner"] is dict
""",
    "no keras": "sys.modules['keras'] = None; import effcap",
}


@pytest.fixture(scope="module")
def light_keras(tmp_path_factory) -> Path:
    """A folder with a package named keras that has nothing but a registry."""
    folder = tmp_path_factory.mktemp("light_keras")
    (folder / "keras").mkdir()
    (folder / "keras" / "__init__.py").write_text(
        "import os, time\n"
        "time.sleep(0.2 if os.environ.get('SLOW') else 0)\n"
        "if os.environ.get('BROKEN'): raise ImportError('broken')\n"
        "from keras import saving\n"
    )
    (folder / "keras" / "saving.py").write_text(
        "objects = {}\ndef get_custom_objects():\n    return objects\n"
    )
    return folder


@pytest.mark.parametrize("case", HOOK_CASES)
def test_classes_are_registered_however_keras_is_imported(light_keras, case):
    script = HOOK + HOOK_CASES[case]
    run_python(script, json.dumps(list(effcap._SERIALIZABLE)), path=light_keras)


# Exported models

EXPORTED = {
    "image": ({}, {"kind": "cross"}),
    "regions": (
        {"kind": "regions", "feature_dim": 10, "num_layers": 2, "num_heads": 2},
        {"kind": "meshed"},
    ),
    "modalities": (
        {"kind": "modalities", "modalities": {"audio": 6, "artist": 3}},
        {"kind": "modalities"},
    ),
}


def export_inputs(captioner: Captioner, rows: int, length: int) -> dict[str, np.ndarray]:
    """Returns random inputs of an exported captioner."""
    encoder = captioner.encoder
    key = "images" if "images" in encoder.input_keys else None
    inputs = example_inputs(encoder, rows, key=key)
    inputs = {key: features.astype(np.float32) for key, features in inputs.items()}
    size = captioner.tokenizer.vocabulary_size
    tokens = np.random.default_rng(length).integers(0, size, (rows, length), np.int32)  # (B,T)
    return {**inputs, "tokens": tokens}


def check_exported(captioner: Captioner, folder: Path, has_segments: bool = False) -> None:
    """Checks the logits of an exported captioner, for two numbers of rows and of tokens."""
    import tensorflow as tf

    exported = tf.saved_model.load(folder)
    for rows, length in ((1, 3), (3, 7)):
        inputs = export_inputs(captioner, rows, length)
        if has_segments:
            inputs["segments"] = np.tile(np.arange(length, dtype=np.int32) // 3, (rows, 1))  # (B,T)
        expected = numpy(captioner(inputs))  # (B,T,V)
        np.testing.assert_allclose(exported.serve(inputs).numpy(), expected, **EXACT)
        signature = exported.signatures["serving_default"]
        (logits,) = signature(**{key: tf.constant(inputs[key]) for key in inputs}).values()
        np.testing.assert_allclose(logits.numpy(), expected, **EXACT)


tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="exports a SavedModel of TensorFlow"
)


@pytest.mark.slow
@tensorflow_only
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind == "image" else pytest.mark.slow) for kind in EXPORTED],
)
def test_a_new_captioner_is_exported_for_all_sizes(tokenizer, tmp_path, kind):
    encoder, fusion = EXPORTED[kind]
    hparams = tiny_hparams(fusion=fusion)
    hparams["encoder"] = encoder or hparams["encoder"]
    captioner = randomize(Captioner.from_hparams(hparams, tokenizer))
    captioner.export(tmp_path, verbose=False)
    check_exported(captioner, tmp_path)


@tensorflow_only
@pytest.mark.slow
def test_segments_are_exported_where_asked_for(captioner, tmp_path):
    signature = export_signature(captioner.encoder, segments=True)
    captioner.export(tmp_path, verbose=False, input_signature=signature)
    check_exported(captioner, tmp_path, has_segments=True)


@tensorflow_only
@pytest.mark.slow
def test_the_shipped_preset_is_exported(tmp_path):
    captioner = Captioner.from_preset("flickr8k-lite0")
    captioner.export(tmp_path, verbose=False)
    check_exported(captioner, tmp_path)
    assert captioner.generate(export_inputs(captioner, 1, 1)["images"][0], "greedy")
