"""Tests of command-line options derived from dataclasses."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import pytest

from effcap import samplers
from effcap.tools.cli.options import add_options, field_help, given_options
from effcap.tools.cli.parsing import Parser, check_fields, parse_sections
from effcap.tools.cli.sampling import SAMPLERS, sampler_class
from effcap.trainers.options import DeviceOptions, RunOptions, ScstOptions, TrainingOptions


@dataclass
class Base:
    """Fields that are inherited.

    Args:
        width, height: size in pixels. A second sentence
            on another line.
    """

    width: int = 3
    height: int | None = None


@dataclass
class Options(Base):
    """Fields of every type.

    Attributes:
        rate: share of 100 % above `width`, spread over
            two lines.
        shuffle: whether to shuffle.
        mode: mode of `nothing`.
        file: file to write.
        count: devices, a number or "all".
        sides: two sides.
        names: several names.
    """

    rate: float = 0.5
    shuffle: bool = False
    mode: Literal["fast", "exact"] = "fast"
    file: Path | None = None
    count: int | Literal["all"] = 1
    sides: tuple[int, int] = (1, 2)
    names: list[str] = field(default_factory=list)


NAMES = [field.name for field in fields(Options)]


def parse(*words: str, **keywords: object) -> argparse.Namespace:
    """Returns the options after parsing."""
    parser = Parser(prog="test")
    add_options(parser, Options, NAMES, **keywords)
    return parser.parse_args(list(words))


def test_options_have_the_names_and_defaults_of_fields():
    assert Options(**vars(parse())) == Options()


def test_values_are_converted_to_the_types_of_fields():
    words = "--width 4 --height 5 --rate 2 --shuffle --mode exact --file a.txt --count all"
    parsed = parse(*words.split(), "--sides", "7", "8", "--names", "x", "y")
    options = Options(4, 5, 2.0, True, "exact", Path("a.txt"), "all", [7, 8], ["x", "y"])
    assert Options(**vars(parsed)) == options
    assert parse("--no-shuffle").shuffle is False and parse("--count", "3").count == 3


@pytest.mark.parametrize(
    ("words", "message"),
    (
        (["--width", "2.5"], "argument --width: invalid int value: '2.5'"),
        (["--mode", "slow"], "argument --mode: invalid choice: 'slow'"),
        (["--count", "some"], "expected a number or all. Received: some"),
        (["--sides", "1"], "argument --sides: expected 2 arguments"),
    ),
)
def test_values_of_other_types_are_errors(words, message, capsys):
    with pytest.raises(SystemExit):
        parse(*words)
    assert message in capsys.readouterr().err


def test_unset_options_are_told_apart_from_defaults():
    parser = Parser(prog="test")
    add_options(parser, Options, NAMES, flags={"count": "devices"}, unset="{}; or another")
    parsed = parser.parse_args(["--devices", "2", "--no-shuffle"])
    values = given_options(parsed, NAMES, flags={"count": "devices"})
    assert values == {"count": 2, "shuffle": False}
    text = " ".join(parser.format_help().split())
    assert "(default: 0.5; or another)" in text and "(default: 1 2; or another)" in text


def test_help_is_the_first_sentence_of_the_docstring():
    assert field_help(Options, "height") == "size in pixels"
    assert field_help(Options, "rate") == "share of 100 %% above --width, spread over two lines"
    assert field_help(Options, "mode") == "mode of `nothing`"


@pytest.mark.parametrize("cls", (DeviceOptions, RunOptions, ScstOptions, TrainingOptions))
def test_every_option_of_training_is_documented(cls):
    assert all(field_help(cls, field.name) for field in fields(cls) if field.init)


def test_a_field_without_an_option_type_is_an_error():
    with pytest.raises(TypeError, match="scst cannot become an option"):
        add_options(Parser(), RunOptions, ["scst"])


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler_options_have_the_fields_of_the_sampler(name):
    stand_in, cls = sampler_class(name), samplers.SAMPLERS[name]
    assert [(f.name, f.default) for f in fields(stand_in)] == [
        (f.name, f.default) for f in fields(cls)
    ]
    assert all(field_help(stand_in, f.name) == field_help(cls, f.name) for f in fields(cls))
    assert set(SAMPLERS) == set(samplers.SAMPLERS)


def test_settings_are_grouped_by_section():
    settings = ["decoder.dropout=0.1", "scst.baseline=greedy", "decoder.fusion.tau=0.2"]
    assert parse_sections(settings, ("decoder", "scst", "run")) == {
        "decoder": {"dropout": 0.1, "fusion": {"tau": 0.2}},
        "scst": {"baseline": "greedy"},
        "run": {},
    }
    with pytest.raises(ValueError, match="Unknown section in --set: decodr"):
        parse_sections(["decodr.dropout=0.1"], ("decoder",))


@pytest.mark.parametrize(
    ("values", "message"),
    (
        ({"rat": 1}, "Unknown setting test.rat. The settings are width, height, rate"),
        ({"width": 0.5}, "Expected test.width of type int. Received: 0.5"),
        ({"width": True}, "Received: true"),
        ({"rate": "x"}, 'Received: "x"'),
        ({"mode": "slow"}, 'Received: "slow"'),
        ({"count": "some"}, 'Received: "some"'),
    ),
)
def test_settings_of_other_names_and_types_are_errors(values, message):
    with pytest.raises(ValueError) as error:
        check_fields(Options, "test", values)
    assert message in str(error.value)


def test_settings_of_the_right_types_are_accepted():
    values = {"height": None, "rate": 1, "mode": "exact", "count": "all", "sides": [1, 2]}
    check_fields(Options, "test", values)
