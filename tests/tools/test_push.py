"""Tests of `effcap push` and model cards, against a stand-in for the hub on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.conversion.backbone_preset import load_backbone, save_backbone
from effcap.presets import BASE, CONFIG, preset_folder
from effcap.samplers import Greedy
from effcap.tools import CardOptions, model_card, push_to_hub
from effcap.tools.cli import main
from effcap.tools.publishing import push
from effcap.trainers.options import RunOptions
from effcap.utils.hub import HubError
from helpers.captioner_folders import write_captioner
from helpers.captioners import example_inputs, randomize, tiny_hparams
from helpers.cli_errors import fails
from helpers.cli_process import CHATTER, effcap, environment
from helpers.hub_server import TOKEN, serve_hub, use_hub

hub_library = pytest.importorskip("huggingface_hub")
NAME = "hf://user/tiny"
CAPTION = "a <b>dog</b> | on a [log](x)"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the hub, with an empty cache and a token that may write."""
    with serve_hub() as served:
        use_hub(served, tmp_path / "cache", monkeypatch, TOKEN)
        yield served


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    """The folder of a tiny preset without a record."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("push") / "tiny"
    randomize(Captioner.from_hparams(tiny_hparams(), tokenizer)).save_to_preset(folder)
    return folder


@pytest.fixture
def preset(saved, tmp_path):
    """A copy of a preset that a test may change."""
    return shutil.copytree(saved, tmp_path / "tiny")


@pytest.fixture(autouse=True)
def sample_captions(monkeypatch):
    """Replaces the captions of the sample photos, which take seconds, where they do not matter."""
    monkeypatch.setattr("effcap.tools.publishing.card_text.caption_samples", same_caption)


def same_caption(captioner: Captioner, names: list[str]) -> list[str]:
    return [CAPTION] * len(names)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def adapter_preset(base: Path, folder: Path) -> Path:
    """Writes a preset with an adapter of a base in a folder."""
    captioner = Captioner.from_preset(base)
    captioner.add_adapter(rank=2)
    captioner.save_to_preset(folder, base=base)
    return folder


def test_a_pushed_run_is_loaded_back_with_equal_captions(hub, trained_run, capsys, eager):
    assert main(["push", str(trained_run.folder), NAME, "--message", "First try"]) == 0
    out, err = capsys.readouterr()
    repository = hub.repositories["user/tiny"]
    commit = repository.branches["main"]
    assert out == f"{hub.address}/user/tiny\ncommit {commit}\n"
    assert repository.messages == ["", "First try"] and "uploaded: training.json, " in err
    best, files = contents(trained_run.folder / "best"), repository.commits[commit]
    assert {**best, "README.md": files["README.md"], ".gitattributes": b""} == files
    captioners = [Captioner.from_preset(name) for name in (trained_run.folder, NAME)]
    images = example_inputs(captioners[0].encoder, 2, key="images")["images"]
    first, second = (x.generate(images, Greedy(max_new_tokens=6)) for x in captioners)
    assert first == second


def test_a_second_push_keeps_an_edited_card_and_removes_the_former_files(hub, preset, tmp_path):
    hub.add("user/base", preset)
    first = push_to_hub(adapter_preset(preset_folder("hf://user/base"), tmp_path / "new"), NAME)
    names = {"README.md", "config.json", "adapter_config.json", "adapter_model.safetensors"}
    assert set(first.files) == names
    repository = hub.repositories["user/tiny"]
    others = {"README.md": b"edited", "notes.txt": b"kept"}
    repository.commit({**repository.commits[first.commit], **others})
    second = push_to_hub(preset, NAME)
    assert repository.commits[second.commit] == {
        **contents(preset),
        **others,
        ".gitattributes": b"",
    }
    assert len(repository.messages) == 4  # created, pushed, edited, pushed


def test_a_branch_is_created_and_the_main_one_left_alone(hub, preset, capsys):
    assert main(["push", str(preset), NAME, "--branch", "v2", "--private"]) == 0
    repository = hub.repositories["user/tiny"]
    assert list(repository.commits[repository.branches["main"]]) == [".gitattributes"]
    assert repository.private and (preset_folder(f"{NAME}@v2") / CONFIG).is_file()
    capsys.readouterr()
    assert "Two branches" in fails(["push", str(preset), f"{NAME}@v1", "--branch", "v2"], capsys)
    with pytest.raises(ValueError, match="Expected a branch"):
        push_to_hub(preset, f"{NAME}@{repository.branches['main']}")


def test_a_card_in_the_folder_is_uploaded_in_place_of_a_new_one(hub, preset, capsys):
    card = preset / "README.md"
    assert main(["push", str(preset), NAME, "--card-only", str(card), "--license", "mit"]) == 0
    assert hub.requests == [] and capsys.readouterr().err == f"model card: {card}\n"
    card.write_text(card.read_text() + "\nMine.\n")
    pushed = push_to_hub(preset, NAME)
    assert hub.repositories["user/tiny"].commits[pushed.commit]["README.md"] == card.read_bytes()


def test_what_is_no_preset_or_would_replace_another_model_is_refused(hub, preset, tmp_path):
    folder = tmp_path / "blip"
    folder.mkdir()
    with pytest.raises(ValueError, match="folder of transformers.*effcap convert"):
        push_to_hub(write_captioner(folder, "blip"), NAME)
    (tmp_path / CONFIG).write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="Expected a preset"):
        push_to_hub(tmp_path, NAME)
    hub.add("user/other", **{CONFIG: b'{"model_type": "gpt2"}'})
    with pytest.raises(ValueError, match="user/other.* holds another model"):
        push_to_hub(preset, "hf://user/other")
    hub.add("user/words", **{"tokenizer.json": b"{}"})
    with pytest.raises(ValueError, match="user/words.* has tokenizer.json without config.json"):
        push_to_hub(preset, "hf://user/words")
    (preset / "model.weights.h5").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="does not hold the weights"):
        push_to_hub(preset, NAME)
    assert list(hub.repositories) == ["user/other", "user/words"]


def test_a_repository_that_is_only_in_the_cache_is_not_pushed_to(hub, preset, monkeypatch):
    push_to_hub(preset, NAME)
    before = dict(hub.repositories["user/tiny"].commits)
    real = push.HubRepository.__init__

    def cached(self, name):
        real(self, name)
        self.commit = None

    monkeypatch.setattr(push.HubRepository, "__init__", cached)
    with pytest.raises(HubError, match="Cannot read hf://user/tiny before pushing"):
        push_to_hub(preset, NAME)
    assert dict(hub.repositories["user/tiny"].commits) == before


def test_a_public_repository_is_no_private_one(hub, preset):
    hub.add("user/tiny")
    with pytest.raises(HubError, match="exists and is public"):
        push_to_hub(preset, NAME, private=True)
    assert hub.repositories["user/tiny"].messages == [""]


def test_a_push_without_a_token_or_a_connection_fails_in_one_line(hub, preset, monkeypatch, capsys):
    command = ["push", str(preset), NAME]
    monkeypatch.setenv("HF_TOKEN", "hf_reads")
    assert "The hub refuses access to hf://user/tiny" in fails(command, capsys)
    monkeypatch.delenv("HF_TOKEN")
    assert "requires a token that may write: log in with `hf auth login`" in fails(command, capsys)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.failing = True
    assert "Cannot reach the hub for hf://user/tiny (it answered 503)" in fails(command, capsys)
    caption = ["caption", str(preset), "--model", NAME]
    assert "hf://user/tiny is not in its cache" in fails(caption, capsys)
    hub.failing = False
    assert "There is no repository hf://user/tiny" in fails(caption, capsys)


def test_an_adapter_is_pushed_with_a_base_that_others_can_load(hub, preset, tmp_path):
    folder = adapter_preset(preset, tmp_path / "adapter")
    with pytest.raises(ValueError, match="on this machine only. Push that first.*--base"):
        push_to_hub(folder, NAME)
    commit = hub.add("user/base", preset).branches["main"]
    pushed = push_to_hub(folder, NAME, base=f"hf://user/base@{commit}")
    files = hub.repositories["user/tiny"].commits[pushed.commit]
    assert json.loads(files[CONFIG])[BASE] == f"hf://user/base@{commit}"
    assert json.loads((folder / CONFIG).read_text())[BASE] == str(preset)
    card = hub_library.ModelCard(files["README.md"].decode())
    assert card.data.base_model == ["user/base"] and "lora" in card.data.tags


@pytest.mark.slow
def test_an_adapter_is_not_pushed_with_a_base_of_other_weights(hub, preset, tmp_path):
    folder = adapter_preset(preset, tmp_path / "adapter")
    randomize(Captioner.from_preset(preset)).save_to_preset(tmp_path / "other")
    hub.add("user/base", tmp_path / "other")
    with pytest.raises(ValueError, match="with other weights"):
        push_to_hub(folder, NAME, base="hf://user/base")
    assert "user/tiny" not in hub.repositories


def test_a_card_states_what_the_record_says(trained_run, tmp_path):
    scores = tmp_path / "scores.json"
    measured = {"scores": {"CIDEr": 0.5, "vocabulary": 9}, "counts": {"photos": 7}}
    scores.write_text(json.dumps({**measured, "references": ["x/test.csv"], "command": ["effcap"]}))
    options = CardOptions(license="cc-by-4.0", datasets=["me/photos"], scores=scores)
    text = model_card(trained_run.folder, "hf://me/tiny", options)
    data = hub_library.ModelCard(text).data
    record = json.loads((trained_run.folder / "best" / "training.json").read_text())
    assert (data.library_name, data.pipeline_tag) == ("keras", "image-to-text")
    assert data.tags == ["image-captioning", "effcap", "keras"]
    assert (data.license, data.datasets, data.metrics) == ("cc-by-4.0", ["me/photos"], ["cider"])
    results = {(x.dataset_name, x.metric_name): x.metric_value for x in data.eval_results}
    assert results == {
        ("test.csv (7 photos)", "CIDEr"): 0.5,
        ("dev.csv (5 photos)", "CIDEr-D, greedy"): round(record["scores"]["val_cider"], 4),
    }
    for line in (
        "- training data: 12 photos, 24 captions",
        f"- seed: {record['hparams']['training']['seed']}",
        f"```sh\n{record['command']}\n```",
        'effcap.Captioner.from_preset("hf://me/tiny")',
        "It was trained on 24 captions of 12 photos",
    ):
        assert line in text


def test_a_card_leaves_out_what_the_record_does_not_say(preset):
    text = model_card(preset)
    data = hub_library.ModelCard(text).data.to_dict()
    assert set(data) == {"library_name", "pipeline_tag", "tags"}
    assert "hf://USER/tiny" in text and "does not say what it was trained on" in text
    assert "## Scores" not in text and "## Training" not in text


def test_a_card_of_rewarded_captions_has_the_settings_of_the_rewards(preset):
    record = {"objective": "scst", "scst": {"baseline": "greedy", "num_samples": 3}}
    (preset / "training.json").write_text(json.dumps({**record, "scores": {"a": {"val_cider": 1}}}))
    text = model_card(preset)
    signature = "CIDEr-D with the end of a caption as a word, baseline=greedy, num\\_samples=3"
    assert f"- SCST: {signature}" in text
    # Scores of the runs that a preset was averaged from are not its own.
    assert "| a | val\\_cider | 1.0000 |" in text and "model-index" not in text


def test_captions_and_records_cannot_break_a_card(preset):
    (preset / "training.json").write_text(
        json.dumps({"command": "effcap train ```\n# x", "note": "<script>\n# y", "model": "a|b"})
    )
    text = model_card(preset)
    assert "| astronaut | a \\<b\\>dog\\</b\\> \\| on a \\[log\\](x) |" in text
    assert "````sh\neffcap train ```\n# x\n````" in text
    assert "\n\\<script\\> # y\n" in text
    assert "- started from: a\\|b" in text


@pytest.mark.parametrize(
    ("record", "message"),
    (("[]", "Expected a JSON object in the training.json"), ("{", "is not a JSON file")),
)
def test_a_damaged_record_is_an_error(preset, record, message):
    (preset / "training.json").write_text(record)
    with pytest.raises(ValueError, match=message):
        model_card(preset)


def test_a_file_without_scores_is_an_error(preset, tmp_path):
    path = tmp_path / "scores.json"
    with pytest.raises(FileNotFoundError, match="There is no file of scores"):
        model_card(preset, options=CardOptions(scores=path))
    path.write_text('{"scores": {"other": 1}}')
    with pytest.raises(ValueError, match="written by effcap evaluate"):
        model_card(preset, options=CardOptions(scores=path))


def test_a_backbone_is_pushed_and_loaded_back(hub, captioner, tmp_path):
    backbone = captioner.encoder.backbone
    save_backbone(backbone, tmp_path / "backbone")
    push_to_hub(tmp_path / "backbone", NAME)
    for ours, theirs in zip(backbone.weights, load_backbone(NAME).weights, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_a_run_is_started_from_the_hub_and_named_after_the_repository(hub, preset):
    hub.add("user/tiny", preset)
    options = RunOptions(model=f"{NAME}@main")
    assert options.preset == preset_folder(NAME) and options.folder == Path("runs", "tiny")
    with pytest.raises(HubError, match="There is no repository hf://user/none"):
        RunOptions(model="hf://user/none")


@pytest.mark.slow
def test_the_sample_photos_are_captioned_by_the_preset(saved, monkeypatch):
    monkeypatch.undo()
    text = model_card(saved)
    captioner = Captioner.from_preset(saved)
    from effcap.utils.paths import resource_folder

    photos = resource_folder("res") / "photos"
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(list(photos.iterdir()))
    for name, caption, _ in rows:
        assert caption == captioner.generate(photos / f"{name[2:]}.jpg").replace("_", "\\_")


@pytest.mark.slow
def test_a_command_with_a_preset_of_the_hub_prints_captions_only(hub, trained_run, tmp_path):
    hub.add("user/tiny", trained_run.folder / "best")
    photo = next((trained_run.data / "photos").iterdir())
    outputs = []
    for model in (trained_run.folder, NAME, NAME):
        command = effcap("caption", photo, "--model", model)
        process = subprocess.run(
            command, env=environment(), capture_output=True, text=True, check=True, cwd=tmp_path
        )
        outputs.append(process.stdout)
        assert not [word for word in CHATTER if word in process.stderr]
    assert outputs[0] == outputs[1] == outputs[2] != ""
    assert hub.downloads() == sorted(path.name for path in (trained_run.folder / "best").iterdir())
