"""Tests of the options of `effcap train` for prefixes, and of --tidy and --plain."""

from __future__ import annotations

import json
from typing import Any

import pytest

from effcap.captioner import Captioner
from effcap.config import load_hparams
from effcap.tools.cli.data_options import caption_edit
from effcap.tools.cli.main import parser
from effcap.tools.cli.train import COMMANDS
from effcap.tools.cli.train_options import run_options
from effcap.trainers import RunOptions, plain, tidy
from helpers.captioners import tiny_hparams
from helpers.cli_errors import fails

PUBLISHED = ("--sparse-mask", "--threshold", 0.1, "--npair", 0.1)


def options_of(out, *words, source: str = "json") -> RunOptions:
    """Returns the options of a run that `effcap train` would start."""
    words = [str(word) for word in ("train", source, "--out", out, *words)]
    arguments = parser().parse_args(words)
    arguments.arguments = words
    return run_options(arguments)


def mask_of(options: RunOptions) -> Any:
    return options.hparams["decoder"]["fusion"]["sparse_mask"]


@pytest.fixture(scope="module")
def presets(tmp_path_factory, tokenizer):
    """A folder with the presets `masked` and `open`, which have prefixes."""
    folder = tmp_path_factory.mktemp("presets")
    for name, mask in (("masked", {"threshold": 0.4, "straight_through": True}), ("open", None)):
        fusion = {"kind": "prefix", "sparse_mask": mask}
        hparams = tiny_hparams(fusion=fusion, max_sequence_length=40)
        Captioner.from_hparams(hparams, tokenizer).save_to_preset(folder / name)
    return folder


@pytest.mark.parametrize("source", list(COMMANDS))
def test_the_published_command_sets_mask_and_npair_weight(tmp_path, source):
    options = options_of(tmp_path / "a", "--model", "clipcap-mlp", *PUBLISHED, source=source)
    assert mask_of(options) == {"threshold": 0.1}
    assert options.training_options.npair_weight == 0.1
    assert options.config["sparse-mask"] is True
    assert (options.config["threshold"], options.config["npair"]) == (0.1, 0.1)


@pytest.mark.parametrize("variant", ("opg-mlp", "opg-transformer"))
def test_the_variants_have_the_settings_of_the_published_command(variant, tmp_path):
    options = options_of(tmp_path / "a", "--model", variant, *PUBLISHED)
    assert options.hparams == load_hparams(variant)


@pytest.mark.parametrize(
    ("words", "mask"),
    (
        (["--model", "opg-mlp", "--no-sparse-mask"], None),
        (["--model", "opg-mlp", "--sparse-mask"], {"threshold": 0.1}),
        (["--model", "opg-mlp", "--threshold", "0.3"], {"threshold": 0.3}),
        (["--model", "opg-mlp", "--npair", "0.3"], {"threshold": 0.1}),
        (["--model", "clipcap-mlp", "--sparse-mask"], {}),
        (
            ["--model", "opg-mlp", "--set", "decoder.fusion.sparse_mask.straight_through=true"]
            + ["--threshold", "0.3"],
            {"threshold": 0.3, "straight_through": True},
        ),
    ),
)
def test_the_mask_of_a_variant_is_changed(words, mask, tmp_path):
    assert mask_of(options_of(tmp_path / "a", *words)) == mask


def test_options_of_the_prefix_win_over_settings(tmp_path):
    threshold = "decoder.fusion.sparse_mask.threshold=0.7"
    settings = ["--model", "opg-mlp", "--set", threshold, "--set", "training.npair_weight=0.7"]
    options = options_of(tmp_path / "a", *settings, *PUBLISHED)
    assert mask_of(options) == {"threshold": 0.1}
    assert options.training_options.npair_weight == 0.1
    assert mask_of(options_of(tmp_path / "a", *settings, "--no-sparse-mask")) is None


def test_a_config_file_repeats_the_options_with_changes(tmp_path):
    options = options_of(tmp_path / "a", "--model", "opg-mlp", *PUBLISHED, "--plain")
    config = tmp_path / "run.json"
    config.write_text(json.dumps({"config": options.config}))
    again = options_of(tmp_path / "a", "--config", config)
    assert again.hparams == options.hparams and again.config == options.config
    changed = options_of(tmp_path / "a", "--config", config, "--threshold", 0.2, "--npair", 0)
    assert mask_of(changed) == {"threshold": 0.2}
    assert changed.training_options.npair_weight == 0


def test_the_threshold_of_a_preset_changes_and_its_mask_remains(presets, tmp_path):
    masked = presets / "masked"
    for words in ((), ("--sparse-mask",), ("--objective", "scst")):
        options = options_of(tmp_path / "a", "--model", masked, "--threshold", 0.2, *words)
        assert mask_of(options) == {"threshold": 0.2, "straight_through": True}
    captioner = Captioner.from_preset(masked, decoder=options.decoder)
    assert captioner.decoder.fusion["sparse_mask"]["threshold"] == 0.2


@pytest.mark.parametrize(
    ("words", "message"),
    (
        (
            ["--model", "lite0-small", "--npair", "0.1"],
            "--npair requires a captioner with a prefix",
        ),
        (["--model", "lite0-small", "--no-sparse-mask"], "lite0-small has decoder.fusion.kind='cr"),
        (["--model", "opg-mlp", "--npair", "1", "--set", "decoder.fusion=cross"], "kind='cross'"),
        (
            ["--model", "clipcap-mlp", "--threshold", "0.1"],
            "clipcap-mlp has none: add --sparse-mask",
        ),
        (
            ["--model", "opg-mlp", "--threshold", "0.1", "--no-sparse-mask"],
            "--threshold requires a mask: leave --no-sparse-mask out",
        ),
        (["--model", "opg-mlp", "--threshold", "1"], "Received: threshold=1.0"),
        (["--model", "opg-mlp", "--threshold", "nan"], "Received: threshold=nan"),
        (["--model", "opg-mlp", "--npair", "-1"], "Received: npair_weight=-1"),
        (
            ["--model", "opg-mlp", "--npair", "0.1", "--objective", "scst"],
            "--npair requires --objective cross-entropy",
        ),
        (["--model", "PRESETS/open", "--sparse-mask"], "without a mask. Leave --sparse-mask out"),
        (["--model", "PRESETS/masked", "--no-sparse-mask"], "a mask. Leave --no-sparse-mask out"),
        (["--model", "opg-mlp", "--plain", "--tidy"], "Give --tidy or --plain, not both"),
        (["--model", "opg-mlp", "--sparse-mask", "True"], "unknown: True"),
    ),
)
def test_options_that_do_not_fit_end_with_what_to_do(presets, words, message, tmp_path, capsys):
    words = [word.replace("PRESETS", str(presets)) for word in words]
    data = ["--json", str(tmp_path / "none.json"), "--out", str(tmp_path / "run")]
    assert message in fails(["train", "json", *data, *words], capsys)


@pytest.mark.parametrize("source", list(COMMANDS))
def test_no_option_takes_true_or_false_as_text(source):
    words = ["train", source]
    actions = parser().parse_args(words).parser._actions
    assert {"--sparse-mask", "--no-sparse-mask"} <= {
        option for action in actions for option in action.option_strings
    }
    for action in actions:
        assert action.type is not bool
        assert not {"True", "true"} & set(map(str, action.choices or ()))
        is_flag = isinstance(action.default, bool) or "no-" in "".join(action.option_strings)
        assert action.nargs == 0 or not is_flag, action.option_strings


@pytest.mark.parametrize(
    ("words", "edit"),
    (
        ([], None),
        (["--tidy"], tidy),
        (["--plain"], plain),
        (["--tidy", "--plain", "--no-tidy"], plain),
    ),  # fmt: skip
)
@pytest.mark.parametrize("command", (["train", "csv"], ["index", "a.tar"],
                                     ["shards", "--csv", "a.csv", "--out", "o"]))  # fmt: skip
def test_captions_are_cleaned_as_chosen(command, words, edit):
    assert caption_edit(parser().parse_args([*command, *words])) is edit
