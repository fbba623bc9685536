"""Tests of presets on the Hugging Face hub, against a stand-in on this machine."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from pathlib import Path

import h5py
import pytest

from effcap.captioner import Captioner
from effcap.conversion.backbone_preset import save_backbone
from effcap.conversion.backbone_weights import adopt_backbone, check_backbone_weights
from effcap.conversion.compiled_preset import compiled_folders
from effcap.presets import (
    BASE,
    CONFIG,
    WEIGHTS,
    find_base,
    portable_name,
    preset_folder,
    preset_name,
    read_config,
)
from effcap.samplers import Greedy
from effcap.utils.hub import HubError, parse_hub_name, snapshot_name
from helpers.captioner_folders import write_captioner
from helpers.captioners import example_inputs, tiny_hparams
from helpers.hub_server import TOKEN, serve_hub, use_hub

pytest.importorskip("huggingface_hub")
NAME = "hf://user/tiny"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the hub, with an empty cache and without a token."""
    with serve_hub() as served:
        use_hub(served, tmp_path / "cache", monkeypatch, None)
        yield served


@pytest.fixture(scope="module")
def preset(tokenizer, tmp_path_factory):
    """The folder of a tiny preset."""
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    Captioner.from_hparams(tiny_hparams(), tokenizer).save_to_preset(folder, record={"seed": 3})
    return folder


def disconnect(hub, monkeypatch) -> None:
    """Makes `huggingface_hub` ask a port where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        hub.address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)


@pytest.mark.parametrize(
    ("text", "expected"),
    (
        ("hf://user/name", ("user/name", None)),
        (Path("hf://user/name"), ("user/name", None)),
        ("hf://user/name/", ("user/name", None)),
        ("hf://my-org/a_b.c@v1.0", ("my-org/a_b.c", "v1.0")),
        (Path("hf://user/name@refs/pr/7"), ("user/name", "refs/pr/7")),
    ),
)
def test_names_are_parsed_also_after_pathlib_took_a_slash(text, expected):
    assert parse_hub_name(text) == expected


@pytest.mark.parametrize(
    "text",
    (
        "hf://name",
        "hf://a/b/c",
        "hf://a/b@",
        "hf://a/b@../../x",
        "hf://../b",
        "hf://a--b/c",
        "hf://",
    ),
)
def test_other_names_are_refused(text):
    with pytest.raises(ValueError, match="hf://USER/NAME or hf://USER/NAME@REVISION"):
        preset_folder(text)


def test_a_preset_of_the_hub_is_the_one_that_was_uploaded(hub, preset, eager):
    hub.add("user/tiny", preset)
    ours, theirs = Captioner.from_preset(preset), Captioner.from_preset(NAME)
    inputs = example_inputs(ours.encoder, 2, key="images")
    sampler = Greedy(max_new_tokens=5)
    captions = [x.generate(inputs["images"], sampler) for x in (ours, theirs)]
    assert captions[0] == captions[1]
    assert "effcap/" in hub.agents[0]


def test_only_the_files_of_a_preset_are_downloaded(hub, preset):
    others = ("model.py", "model.pkl", "model.bin", "weights.pth", "sub/config.json", "../up.json")
    hub.add("user/tiny", preset, **dict.fromkeys(others, b"not read"))
    folder = preset_folder(NAME)
    expected = sorted(path.name for path in preset.iterdir())
    assert sorted(path.name for path in folder.iterdir()) == expected == hub.downloads()


def test_files_in_the_cache_are_not_downloaded_again_until_the_branch_moves(hub, preset, capfd):
    repository = hub.add("user/tiny", preset)
    first = preset_folder(NAME)
    hub.requests.clear()
    assert preset_folder(NAME) == first and hub.requests == ["GET /api/models/user/tiny"]
    files = {path.name: path.read_bytes() for path in preset.iterdir()}
    repository.commit({**files, "training.json": b'{"seed": 4}'})
    second = preset_folder(NAME)
    assert second != first and hub.downloads() == ["training.json"]
    assert preset_folder(f"{NAME}@{first.name}") == first
    assert capfd.readouterr() == ("", f"downloading {NAME}\n" * 2)


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, preset):
    repository = hub.add("user/tiny", preset)
    files = {path.name: path.read_bytes() for path in preset.iterdir()}
    commit = repository.commit({**files, "training.json": b"{}"}, "refs/pr/1")
    for revision in ("refs/pr/1", commit):
        assert (preset_folder(f"{NAME}@{revision}") / "training.json").read_text() == "{}"
    with pytest.raises(HubError, match=r"hf://user/tiny has no branch, tag or commit v9"):
        preset_folder(f"{NAME}@v9")


def test_repositories_that_cannot_be_read_are_explained(hub, preset, monkeypatch):
    hub.add("user/tiny", preset).private = True
    for name in (NAME, "hf://user/missing"):
        with pytest.raises(HubError, match="There is no repository .*private.*hf auth login"):
            preset_folder(name)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert (preset_folder(NAME) / WEIGHTS).is_file()


@pytest.mark.parametrize(
    ("files", "message"),
    (
        ({"README.md": b"hello"}, "with config.json outside any folder.*README.md"),
        ({"sub/config.json": b"{}"}, "outside any folder.*sub/config.json"),
        ({"config.json": b"no JSON"}, "whose config.json is of another program"),
        ({"config.json": b'{"model_type": "gpt2"}'}, "whose config.json is of gpt2"),
        ({"config.json": b'{"encoder": {}, "decoder": {}}'}, "which lacks model.weights.h5"),
        (
            {"config.json": b'{"model_type": "blip"}', "pytorch_model.bin": b""},
            "pickles are not downloaded.*pytorch_model.bin",
        ),
    ),
)
def test_a_repository_without_a_preset_is_refused_with_its_files(hub, files, message):
    hub.add("user/tiny", **files)
    with pytest.raises(HubError, match=message):
        preset_folder(NAME)
    assert set(hub.downloads()) <= {CONFIG}


def test_without_a_connection_the_cache_is_used_and_announced(hub, preset, monkeypatch, capsys):
    hub.add("user/tiny", preset)
    folder = preset_folder(NAME)
    capsys.readouterr()
    hub.failing = True
    assert preset_folder(NAME) == folder
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"it answered 503): using the copy of {NAME}" in error
    disconnect(hub, monkeypatch)
    assert preset_folder(NAME) == folder
    assert os.strerror(errno.ECONNREFUSED) in capsys.readouterr().err
    with pytest.raises(
        HubError, match="Cannot reach the hub .* hf://user/other is not in its cache"
    ):
        preset_folder("hf://user/other")


def test_offline_mode_uses_the_cache_without_a_request(hub, preset, monkeypatch, capsys):
    hub.add("user/tiny", preset)
    folder = preset_folder(NAME)
    hub.requests.clear()
    capsys.readouterr()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert preset_folder(NAME) == folder
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set, and hf://user/other is not in"):
        preset_folder("hf://user/other")
    assert hub.requests == [] and capsys.readouterr() == ("", "")


def test_a_missing_library_is_an_import_error_with_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'effcap\[hub\]'"):
        preset_folder(NAME)


def test_presets_of_the_hub_have_a_name_and_are_compiled_outside_its_cache(
    hub, preset, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    hub.add("user/tiny", preset)
    folder = preset_folder(NAME)
    assert preset_name(folder) == preset_name(NAME) == "user/tiny"
    assert portable_name(folder) == f"{NAME}@{folder.name}"
    assert portable_name(preset) is None and snapshot_name(preset) is None
    assert portable_name(preset_folder("flickr8k-lite0")) == "flickr8k-lite0"
    (compiled,) = compiled_folders(folder, "openvino", "float32")
    assert compiled.is_relative_to(tmp_path / "user" / "effcap")
    assert compiled.parent.name.startswith("user--tiny-")


def adapter_preset(base, folder: Path) -> Path:
    """Writes a preset with an adapter for a base."""
    captioner = Captioner.from_preset(base)
    captioner.add_adapter(rank=2)
    captioner.save_to_preset(folder, base=preset_folder(base))
    return folder


def test_an_adapter_keeps_its_base_on_the_hub_by_commit(hub, preset, tmp_path):
    hub.add("user/tiny", preset)
    folder = adapter_preset(NAME, tmp_path / "adapter")
    commit = preset_folder(NAME).name
    assert json.loads((folder / CONFIG).read_text())[BASE] == f"{NAME}@{commit}"
    hub.add("user/adapter", folder)
    captioner = Captioner.from_preset("hf://user/adapter")
    assert list(captioner.adapters) == list(Captioner.from_preset(folder).adapters)
    assert not (preset_folder("hf://user/adapter") / WEIGHTS).exists()


def test_a_preset_of_the_hub_has_no_base_in_a_local_folder(hub, preset, tmp_path):
    hub.add("user/adapter", adapter_preset(preset, tmp_path / "adapter"))
    folder = preset_folder("hf://user/adapter")
    with pytest.raises(ValueError, match="user/adapter holds an adapter alone.*is not on the hub"):
        find_base(folder, read_config(folder))


def test_a_base_that_is_an_adapter_itself_is_refused(hub, tmp_path):
    config = {BASE: "hf://user/circle", "encoder": {}, "decoder": {}}
    files = {CONFIG: json.dumps(config).encode(), "adapter_model.safetensors": b""}
    hub.add("user/circle", **files)
    with pytest.raises(ValueError, match="whose base .* holds an adapter alone too"):
        Captioner.from_preset("hf://user/circle")
    (tmp_path / CONFIG).write_text(json.dumps({**config, BASE: str(tmp_path)}))
    with pytest.raises(ValueError, match="whose base .* holds an adapter alone too"):
        find_base(tmp_path, read_config(tmp_path))


def test_backbone_weights_may_be_on_the_hub(hub, captioner, tmp_path):
    save_backbone(captioner.encoder.backbone, tmp_path / "backbone")
    hub.add("user/backbone", tmp_path / "backbone")
    check_backbone_weights("hf://user/backbone")
    adopted = adopt_backbone(tiny_hparams(), "hf://user/backbone")
    assert adopted["encoder"]["backbone"]["trainable_blocks"] == 0
    with pytest.raises(HubError, match="There is no repository"):
        check_backbone_weights("hf://user/none")


def test_captioners_of_transformers_are_loaded_from_safetensors(hub, tmp_path):
    folder = tmp_path / "blip"
    folder.mkdir()
    write_captioner(folder, "blip")
    shutil.copy(folder / CONFIG, folder / "modeling.py")
    hub.add("user/blip", folder)
    fetched = preset_folder("hf://user/blip")
    expected = {path.name for path in folder.iterdir()} - {"modeling.py"}
    assert {path.name for path in fetched.iterdir()} == expected >= {"model.safetensors"}
    assert Captioner.from_preset("hf://user/blip").tokenizer is not None


def test_a_preset_with_code_or_with_weights_in_another_file_is_refused(hub, preset, tmp_path):
    code = {"class_name": "__lambda__", "config": {"code": "4wAAAAA=", "defaults": None}}
    network = {"module": "keras.layers", "class_name": "Lambda", "config": {"function": code}}
    config = json.loads((preset / CONFIG).read_text())
    config["encoder"]["backbone"]["network"] = network
    hub.add("user/code", preset, **{CONFIG: json.dumps(config).encode()})
    with pytest.raises(ValueError, match="Cannot create the captioner.*[Ll]ambda"):
        Captioner.from_preset("hf://user/code")
    weights, secret = tmp_path / WEIGHTS, tmp_path / "secret"
    shutil.copy(preset / WEIGHTS, weights)
    secret.write_bytes(bytes(4096))
    with h5py.File(weights, "r+") as file:
        found = []
        file.visititems(lambda name, x: found.append(name) if hasattr(x, "shape") else None)
        shape, dtype = file[found[0]].shape, file[found[0]].dtype
        del file[found[0]]
        file.create_dataset(found[0], shape, dtype, external=[(str(secret), 0, 4096)])
    hub.add("user/reads", preset, **{WEIGHTS: weights.read_bytes()})
    with pytest.raises(ValueError, match="is stored in another file"):
        Captioner.from_preset("hf://user/reads")
