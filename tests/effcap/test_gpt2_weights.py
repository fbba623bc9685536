"""Tests of effcap.weights.gpt2: all file formats against transformers' logits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from effcap.captioner import Captioner
from effcap.samplers import Greedy
from effcap.weights.gpt2 import gpt2_hparams, load_gpt2
from effcap.weights.gpt2.formats import find_format, open_gpt2
from helpers.captioners import example_inputs, numpy, tiny_hparams
from helpers.gpt2_writers import (
    HDF5_LAYOUTS,
    HDF5_WRITERS,
    WRITERS,
    shapes_of,
    write_folder,
    write_hdf5,
)
from helpers.torch_writer import Torch

DATA = Path(__file__).resolve().parents[1] / "data"
NAMES = ("vocab_size", "n_positions", "n_embd", "n_head", "n_layer", "n_inner")
FORMATS = (*WRITERS, *HDF5_WRITERS)
TIGHT = {"rtol": 1e-5, "atol": 1e-5}
HDF5_ROOT = HDF5_LAYOUTS["published"][0]


class Reference:
    """Sizes, weights, tokens and logits of a tiny random GPT-2 of `transformers`."""

    def __init__(self, name: str):
        with np.load(DATA / "gpt2_reference.npz") as file:
            arrays = {k.removeprefix(f"{name}/"): file[k] for k in file if k.startswith(f"{name}/")}
        self.tokens, self.logits = arrays["tokens"], arrays["logits"]
        self.config = {n: int(arrays[f"config/{n}"]) for n in NAMES if f"config/{n}" in arrays}
        self.weights = {
            k.removeprefix("weights/"): arrays[k] for k in arrays if k.startswith("weights/")
        }

    def write(self, form: str, folder: Path, **changes) -> Path:
        """Writes its folder in a format, with tensors changed, added, or removed if None."""
        changed = {k: v for k, v in (self.weights | changes).items() if v is not None}
        shapes = {name: array.shape for name, array in changed.items()}
        return write_folder(form, folder, self.config, shapes, changed.__getitem__)


@pytest.fixture(scope="module")
def references() -> dict[str, Reference]:
    return {name: Reference(name) for name in ("small", "odd")}


def captioner_for(folder: Path, tokenizer=None, **decoder) -> Captioner:
    """Returns a new captioner of the folder's sizes, with a tiny vision network."""
    keras.utils.set_random_seed(0)
    hparams = tiny_hparams(**gpt2_hparams(folder) | decoder)
    hparams["encoder"]["num_heads"] = 1
    return Captioner.from_hparams(hparams, tokenizer)


@pytest.fixture(scope="module")
def captioners(references, tmp_path_factory) -> dict[str, Captioner]:
    """One captioner of each reference's sizes, shared by tests that load weights."""
    folders = {name: tmp_path_factory.mktemp(name) for name in references}
    return {
        name: captioner_for(reference.write("safetensors", folders[name]))
        for name, reference in references.items()
    }


@pytest.fixture
def odd_captioner(captioners) -> Captioner:
    return captioners["odd"]


def overwrite(captioner: Captioner) -> Captioner:
    """Sets all variables of GPT-2 to 9, so that only a complete load restores them."""
    for variable in captioner.decoder.pretrained_variables:
        variable.assign(np.full(variable.shape, 9, np.float32))
    return captioner


def snapshot(captioner: Captioner) -> list[np.ndarray]:
    """Returns copies of all weights."""
    return [np.array(numpy(weight)) for weight in captioner.weights]


def load_must_fail(captioner: Captioner, folder: Path, *words: str) -> str:
    """Checks that loading fails with all words in its message, and changes nothing."""
    before = snapshot(captioner)
    with pytest.raises((ValueError, OSError)) as caught:
        load_gpt2(captioner, folder)
    message = str(caught.value)
    for word in words:
        assert word in message, message
    for old, new in zip(before, snapshot(captioner), strict=True):
        np.testing.assert_array_equal(old, new)
    return message


@pytest.mark.parametrize("name", ("small", "odd"))
@pytest.mark.parametrize("form", FORMATS)
def test_logits_match_those_of_transformers(form, name, references, captioners, tmp_path):
    reference, captioner = references[name], overwrite(captioners[name])
    folder = reference.write(form, tmp_path)
    message = load_gpt2(captioner, folder)
    assert find_format(folder).title in message and str(folder) in message
    np.testing.assert_allclose(
        numpy(captioner.decoder(reference.tokens)), reference.logits, **TIGHT
    )


@pytest.mark.parametrize(
    ("name", "file", "prefix"),
    (
        ("small", "pytorch_model.bin", "transformer."),  # torch's zip, with masks and lm_head
        ("odd", "pytorch_model.bin", ""),  # torch's older format
        ("odd", "model.safetensors", "transformer."),
    ),
)
def test_files_written_by_torch_and_transformers_are_read(
    name, file, prefix, references, captioners, tmp_path
):
    for copied in (file, "config.json"):
        shutil.copy(DATA / "gpt2_files" / name / copied, tmp_path)
    captioner = overwrite(captioners[name])
    load_gpt2(captioner, tmp_path)
    assert open_gpt2(tmp_path).prefix == prefix
    expected = references[name]
    np.testing.assert_allclose(numpy(captioner.decoder(expected.tokens)), expected.logits, **TIGHT)


@pytest.mark.parametrize("dtype", ("float16", "float64", "bfloat16"))
def test_other_float_types_are_read(dtype, references, odd_captioner, tmp_path):
    import ml_dtypes

    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    reference = references["odd"]
    folder = reference.write("safetensors", tmp_path)
    stored = {name: array.astype(kind) for name, array in reference.weights.items()}
    save_file(stored, folder / "model.safetensors")
    load_gpt2(overwrite(odd_captioner), folder)
    decoder = odd_captioner.decoder
    for name, layer in (("wte", decoder.token_embedding), ("wpe", decoder.position_embedding)):
        expected = stored[f"{name}.weight"].astype(np.float32)
        np.testing.assert_array_equal(numpy(layer.embeddings), expected)


def test_formats_are_searched_in_the_documented_order(references, odd_captioner, tmp_path):
    reference = references["odd"]
    order = ("safetensors", "torch", "hdf5", "checkpoint")
    for number, form in enumerate(order):  # each with a bias of its own
        reference.write(form, tmp_path, **{"ln_f.bias": np.full(16, number, np.float32)})
    files = ("model.safetensors", "pytorch_model.bin", "tf_model.h5", "model.ckpt.index")
    for number, file in enumerate(files):
        load_gpt2(odd_captioner, tmp_path)
        np.testing.assert_array_equal(numpy(odd_captioner.decoder.ln_f.beta), number)
        (tmp_path / file).unlink()


def test_a_new_captioner_generates_exactly_what_gpt2_alone_generates(
    references, tmp_path, tokenizer
):
    config = references["small"].config | {"vocab_size": tokenizer.vocabulary_size}
    rng = np.random.default_rng(0)
    shapes = shapes_of(config)
    weights = {k: rng.normal(size=s).astype(np.float32) * 0.3 for k, s in shapes.items()}
    folder = write_folder("safetensors", tmp_path, config, shapes, weights.__getitem__)
    captioner = captioner_for(folder, tokenizer)
    load_gpt2(captioner, folder)
    decoder, inputs = captioner.decoder, example_inputs(captioner.encoder, 3)
    memory = captioner.encoder(inputs, training=False)
    tokens = rng.integers(0, config["vocab_size"], (3, 9))
    alone = numpy(decoder(tokens))
    np.testing.assert_array_equal(numpy(decoder(tokens, memory)), alone)

    row = [tokenizer.bos_id]
    for _ in range(8):  # greedy, without memory and without a cache
        row.append(int(np.argmax(numpy(decoder(np.array([row])))[0, -1])))
        if row[-1] == tokenizer.eos_id:
            break
    for (caption,) in captioner.generate_batch(inputs, Greedy(max_new_tokens=8)):
        assert list(caption.tokens) == [token for token in row[1:] if token != tokenizer.eos_id]


@pytest.mark.parametrize("fusion", ({"kind": "cross"}, None))
def test_fusion_and_added_special_tokens_keep_their_values(fusion, references, tmp_path):
    folder = references["odd"].write("safetensors", tmp_path)
    captioner = captioner_for(folder, vocabulary_size=34, num_special_tokens=3, fusion=fusion)
    decoder = captioner.decoder
    pretrained = {id(weight) for weight in decoder.pretrained_variables}
    before = {weight.path: np.array(numpy(weight)) for weight in captioner.weights}
    load_gpt2(captioner, folder)
    for weight in captioner.weights:
        same = np.array_equal(before[weight.path], numpy(weight))
        assert same != (id(weight) in pretrained), weight.path
    embeddings = numpy(decoder.token_embedding.embeddings)
    np.testing.assert_array_equal(embeddings, references["odd"].weights["wte.weight"])


def weight(*shape) -> np.ndarray:
    return np.ones(shape, np.float32)


# Changes of the tensors, and what the error must name: for Hugging Face's names, HDF5, checkpoint.
MISFITS = {
    "missing": (
        {"h.1.ln_2.bias": None},
        "missing: ",
        ("h.1.ln_2.bias (16,)", "h_._1/ln_2/beta:0 (16,)", "model/h1/ln_2/b (16,)"),
    ),
    "extra": (
        {"h.3.mlp.c_fc.bias": weight(40)},
        "unexpected: ",
        ("h.3.mlp.c_fc.bias (40,)", "h_._3/mlp/c_fc/bias:0 (1, 40)", "model/h3/mlp/c_fc/b (40,)"),
    ),
    "truncated": (
        {"wpe.weight": weight(49, 16)},
        "of another shape: ",
        ("wpe.weight (49, 16) for (50, 16)", "wpe/embeddings:0 (49, 16)", "model/wpe (49, 16)"),
    ),
    "transposed": (
        {"h.0.attn.c_attn.weight": weight(48, 16)},
        "of another shape: ",
        (
            "h.0.attn.c_attn.weight (48, 16) for (16, 48)",
            "h_._0/attn/c_attn/weight:0 (48, 16) for (16, 48)",
            "model/h0/attn/c_attn/w (1, 48, 16) for (1, 16, 48)",
        ),
    ),
    "flat": (
        {"h.2.ln_1.weight": weight(1, 16)},
        "of another shape: ",
        ("h.2.ln_1.weight (1, 16) for (16,)", "ln_1/gamma:0 (1, 16)", "model/h2/ln_1/g (1, 16)"),
    ),
    "renamed": (
        {"h.0.mlp.c_proj.bias": None, "h.0.mlp.c_pro.bias": weight(16)},
        "missing: ",
        (
            "h.0.mlp.c_pro.bias (16,)",
            "h_._0/mlp/c_pro/bias:0 (1, 16)",
            "model/h0/mlp/c_pro/b (16,)",
        ),
    ),
    "infinite": (
        {"h.1.attn.c_proj.weight": np.full((16, 16), np.inf, np.float32)},
        "with values that are not finite: ",
        ("h.1.attn.c_proj.weight", "h_._1/attn/c_proj/weight:0", "model/h1/attn/c_proj/w"),
    ),
    "undefined": (
        {"ln_f.weight": np.array([np.nan] + 15 * [1], np.float32)},
        "with values that are not finite: ",
        ("ln_f.weight", "ln_f/gamma:0", "model/ln_f/g"),
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("form", FORMATS)
def test_mismatched_tensors_are_listed_and_nothing_is_loaded(
    form, misfit, references, odd_captioner, tmp_path
):
    changes, kind, names = MISFITS[misfit]
    folder = references["odd"].write(form, tmp_path, **changes)
    name = names[1 if "hdf5" in form else 2 if form == "checkpoint" else 0]
    message = load_must_fail(odd_captioner, folder, kind, name, "Nothing was loaded")
    assert message.count(";") == (1 if misfit == "renamed" else 0)


@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_file_is_named(form, references, odd_captioner, tmp_path):
    folder = references["odd"].write(form, tmp_path)
    for file in sorted(folder.iterdir()):
        if file.name == "checkpoint" or file.name.endswith(".index.json"):
            continue  # the first is only read if there are several checkpoints
        whole = file.read_bytes()
        for size in (0, 5, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:size])
            load_must_fail(odd_captioner, folder, file.stem)
        file.write_bytes(whole)
    load_gpt2(odd_captioner, folder)


@pytest.mark.parametrize(
    ("changes", "name"),
    (
        ({"lm_head.weight": weight(31, 16)}, "lm_head.weight"),
        ({"h.0.attn.bias": weight(1, 1, 50, 50)}, "h.0.attn.bias"),
        ({"h.0.attn.bias": weight(50, 50)}, "h.0.attn.bias (50, 50) for (1, 1, 50, 50)"),
        ({"h.2.attn.masked_bias": np.array(1, np.float32)}, "h.2.attn.masked_bias"),
        ({"h.3.attn.masked_bias": np.array(-1e4, np.float32)}, "h.3.attn.masked_bias ()"),
    ),
)
def test_extra_tensors_must_be_masks_or_the_token_embeddings(
    changes, name, references, odd_captioner, tmp_path
):
    folder = references["odd"].write("safetensors", tmp_path, **changes)
    load_must_fail(odd_captioner, folder, name)


def test_integer_tensors_are_an_error(references, odd_captioner, tmp_path):
    folder = references["odd"].write("safetensors", tmp_path)
    stored = load_file(folder / "model.safetensors")
    stored["ln_f.bias"] = stored["ln_f.bias"].astype(np.int32)
    save_file(stored, folder / "model.safetensors")
    load_must_fail(odd_captioner, folder, "not floating-point: ln_f.bias I32")


def test_shards_must_match_their_index(references, odd_captioner, tmp_path):
    folder = references["odd"].write("sharded", tmp_path)
    index = folder / "model.safetensors.index.json"
    good = json.loads(index.read_text())

    def must_fail(shards, *words):
        index.write_text(json.dumps({"weight_map": shards}))
        load_must_fail(odd_captioner, folder, *words)

    shards = good["weight_map"]
    first, second = sorted(set(shards.values()))
    must_fail(shards | {"wte.weight": second}, "wte.weight", first)
    must_fail({k: v for k, v in shards.items() if k != "wte.weight"}, "wte.weight", first)
    must_fail(shards | {"wte.weight": "../" + first}, "beside", "'../")
    must_fail(shards | {"wte.weight": "gone.safetensors"}, "gone.safetensors", "is missing")
    must_fail([first], "weight_map")
    shutil.copy(folder / first, folder / "third")
    must_fail(shards | {k: "third" for k in shards if shards[k] == second}, "third")


def test_the_checkpoint_file_chooses_among_several(references, odd_captioner, tmp_path):
    reference = references["odd"]
    reference.write("checkpoint", tmp_path, **{"ln_f.bias": weight(16)})
    for file in tmp_path.glob("model.ckpt.*"):
        file.rename(tmp_path / file.name.replace("model.ckpt", "model-7"))
    reference.write("checkpoint", tmp_path)
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "/elsewhere/model-7"\nall_model_checkpoint_paths: "model.ckpt"\n'
    )
    load_gpt2(odd_captioner, tmp_path)
    np.testing.assert_array_equal(numpy(odd_captioner.decoder.ln_f.beta), 1)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model-8"\n')
    load_must_fail(odd_captioner, tmp_path, "several *.index")
    for file in tmp_path.glob("*.index"):
        file.unlink()
    load_must_fail(odd_captioner, tmp_path, "No model.ckpt.index")


@pytest.mark.parametrize("layout", HDF5_LAYOUTS)
def test_hdf5_files_of_all_versions_of_transformers_are_read(
    layout, references, odd_captioner, tmp_path
):
    reference = references["odd"]
    folder = reference.write("hdf5", tmp_path)
    shapes = {name: array.shape for name, array in reference.weights.items()}
    write_hdf5(folder, shapes, reference.weights.__getitem__, layout)
    load_gpt2(overwrite(odd_captioner), folder)
    root, embedding = HDF5_LAYOUTS[layout]
    file = open_gpt2(folder)
    assert file.prefix == f"{root}/" and f"{root}/wte/{embedding}:0" in file.tensors
    np.testing.assert_allclose(
        numpy(odd_captioner.decoder(reference.tokens)), reference.logits, **TIGHT
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    (
        ("wte/weight:0", "wte/kernel:0", ("missing: ", "wte/embeddings:0 (31, 16)", "wte/kernel:")),
        ("wpe/embeddings:0", "wpe/weight:0", ("missing: ", "wpe/embeddings:0", "wpe/weight:0")),
        (None, "wte/embeddings:0", ("unexpected: ", "wte/weight:0 (31, 16)")),
        (None, "score/kernel:0", ("unexpected: ", "score/kernel:0 (31, 16)")),
        (None, "/score/kernel:0", ("unexpected: ", "score/kernel:0 (31, 16)")),
        (None, "/model_weights/wte/weight:0", ("unexpected: ", "model_weights/wte/weight:0")),
    ),
)
def test_other_names_in_hdf5_files_are_an_error(
    old, new, words, references, odd_captioner, tmp_path
):
    folder = references["odd"].write("hdf5", tmp_path)
    with h5py.File(folder / "tf_model.h5", "a") as file:
        group = file[HDF5_ROOT]
        group[new] = group["wte/weight:0" if old is None else old][()]
        if old is not None:
            del group[old]
    load_must_fail(odd_captioner, folder, *words)


def test_hdf5_shards_must_match_their_index(references, odd_captioner, tmp_path):
    folder = references["odd"].write("sharded_hdf5", tmp_path)
    index = folder / "tf_model.h5.index.json"
    shards = json.loads(index.read_text())["weight_map"]
    name = "tfgpt2lm_head_model/transformer/wte/embeddings:0"
    index.write_text(json.dumps({"weight_map": {k: v for k, v in shards.items() if k != name}}))
    load_must_fail(odd_captioner, folder, shards[name], "transformer/wte/embeddings:0")
    (folder / shards[name]).unlink()
    load_must_fail(odd_captioner, folder, shards[name], "is missing")


def test_hdf5_data_outside_the_file_is_an_error(references, odd_captioner, tmp_path):
    folder = references["odd"].write("hdf5", tmp_path)
    with h5py.File(folder / "tf_model.h5", "a") as file:
        group = file[f"{HDF5_ROOT}/ln_f"]
        del group["beta:0"]
        group.create_dataset("beta:0", shape=16, dtype="f4", external=[("/etc/passwd", 0, 64)])
    load_must_fail(odd_captioner, folder, "ln_f/beta:0 is not stored in the file in one piece")


def test_a_folder_without_weights_names_the_known_files(odd_captioner, tmp_path):
    load_must_fail(odd_captioner, tmp_path / "none", "config.json or hparams.json")
    with pytest.raises(FileNotFoundError, match="it does not exist"):
        open_gpt2(tmp_path / "none")
    shutil.copy(DATA / "gpt2_files" / "odd" / "config.json", tmp_path)
    load_must_fail(
        odd_captioner, tmp_path, "model.safetensors", "checkpoint", "No GPT-2 weights in"
    )


def test_hdf5_data_of_another_type_are_an_error(references, odd_captioner, tmp_path):
    folder = references["odd"].write("hdf5", tmp_path)
    with h5py.File(folder / "tf_model.h5", "a") as file:
        group = file[f"{HDF5_ROOT}/ln_f"]
        del group["beta:0"]
        group["beta:0"] = np.ones(16, ">f4")
    load_must_fail(odd_captioner, folder, "not floating-point: ", "ln_f/beta:0 HDF5 >f4")


def test_overlapping_hdf5_data_are_an_error(references, odd_captioner, tmp_path):
    path = references["odd"].write("hdf5", tmp_path) / "tf_model.h5"
    with h5py.File(path) as file:
        group = file[f"{HDF5_ROOT}/ln_f"]
        offsets = [group[name].id.get_offset().to_bytes(8, "little") for name in group]
    whole = path.read_bytes()
    assert whole.count(offsets[0]) == 1
    path.write_bytes(whole.replace(*offsets))
    load_must_fail(odd_captioner, tmp_path, "tf_model.h5", "parts of it overlap")


def test_overlapping_torch_tensors_are_an_error(tmp_path):
    torch = Torch()
    torch.storages["0"] = ("FloatStorage", np.ones(16, np.float32))
    content = torch.dict(**{"ln_f.bias": torch.tensor("0", 0, (16,), (0,))})
    (tmp_path / "pytorch_model.bin").write_bytes(torch.file("zip", content))
    with pytest.raises(ValueError, match="tensor ln_f.bias of .*overlap"):
        open_gpt2(tmp_path)
