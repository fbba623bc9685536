"""The picture of a run's curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from effcap.trainers import plot_curves
from effcap.trainers.engine.chart import LEFT, PANEL_HEIGHT, RIGHT, WIDTH, nice_ticks
from effcap.trainers.engine.curves import BLUE, GREEN, ORANGE, PICTURE, STEPS, CurveWriter

SCORES = (
    "epoch,loss,val_loss,val_cross_entropy,val_cider\n1,4,4.5,4,0.2\n2,3,4,3.5,0.6\n3,2,4,3,0.5\n"
)


def has_color(picture: Image.Image, color: str, panel: int) -> bool:
    """Returns whether a panel has pixels of about a color, in its axes."""
    top = PANEL_HEIGHT * panel
    pixels = np.asarray(picture)[top + 30 : top + PANEL_HEIGHT].astype(int)
    return (abs(pixels - ImageColor.getrgb(color)).max(axis=-1) < 12).any()


def dark_columns(picture: Image.Image) -> np.ndarray:
    """Returns where a panel has a dashed line, as fractions of the x axis."""
    pixels = np.asarray(picture.convert("L"))[60:200, LEFT + 4 : WIDTH - RIGHT]
    columns = np.flatnonzero((pixels < 160).mean(axis=0) > 0.4)
    return (columns + 4) / (WIDTH - RIGHT - LEFT)


def test_losses_cider_and_the_best_epoch_are_drawn(tmp_path):
    (tmp_path / "log.csv").write_text(SCORES)
    picture = plot_curves(tmp_path)
    assert picture.size == (WIDTH, 2 * PANEL_HEIGHT)
    assert has_color(picture, BLUE, 0) and has_color(picture, ORANGE, 0)
    assert has_color(picture, ORANGE, 1) and not has_color(picture, BLUE, 1)
    columns = dark_columns(picture)
    assert len(columns) and columns == pytest.approx(2 / 3, abs=0.005)


def test_rewards_have_a_panel_of_their_own(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,loss,reward,baseline\n1,0.1,0.5,0.4\n2,0.2,0.6,\n")
    picture = plot_curves(tmp_path)
    assert picture.size == (WIDTH, 2 * PANEL_HEIGHT)
    assert has_color(picture, GREEN, 1) and not len(dark_columns(picture))


def test_a_run_in_its_first_epoch_has_a_picture(tmp_path):
    writer = CurveWriter(tmp_path, 0, 100)
    for step in range(1, 40, 10):
        writer.write_scalars({"step/loss": 9 / step, "step/learning_rate": 0.1}, step)
    writer.write_scalars({"epoch/loss": 3.0}, 40)
    assert (tmp_path / STEPS).read_text().splitlines()[-1] == "31,0.31,0.290323,0.1"
    assert not (tmp_path / PICTURE).exists()
    writer.flush()
    assert Image.open(tmp_path / PICTURE).size == (WIDTH, PANEL_HEIGHT)
    assert sorted(path.name for path in tmp_path.iterdir()) == [PICTURE, STEPS]


def test_long_epochs_draw_the_picture_every_minute(tmp_path, monkeypatch):
    writer = CurveWriter(tmp_path, 0, 100)
    monkeypatch.setattr("effcap.trainers.engine.curves.time.monotonic", lambda: 1e9)
    writer.write_scalars({"step/loss": 1.0}, 1)
    assert (tmp_path / PICTURE).is_file()


def test_a_resumed_run_replaces_the_steps_after_its_checkpoint(tmp_path):
    rows = "step,epoch,loss\n1,0.1,5\n11,1.1,4\n21,2.1,3\n31,3"
    (tmp_path / STEPS).write_text(rows)
    scalars = {"step/loss": 2.5, "step/learning_rate": 0.1}
    CurveWriter(tmp_path, 15, 10).write_scalars(scalars, 21)
    assert (tmp_path / STEPS).read_text().split("\n") == [
        "step,epoch,loss,learning_rate",
        "1,0.1,5,nan",  # recorded without learning rates
        "11,1.1,4,nan",
        "21,2.1,2.5,0.1",
        "",
    ]
    CurveWriter(tmp_path, 0, 10)  # resumed without a checkpoint
    assert (tmp_path / STEPS).read_text() == "step,epoch,loss,learning_rate\n"


@pytest.mark.parametrize(
    "rows", ("1,0.1,nan\n", "1,0.1,7\n", "\0\0\n1,2\n\xe9,1,1\n", "1,1,5\n" * 9)
)
def test_unusual_losses_are_drawn(tmp_path, rows):
    Path(tmp_path, STEPS).write_bytes(f"step,epoch,loss\n{rows}".encode("latin-1"))
    (tmp_path / "log.csv").write_text("epoch,loss\n1,3\n")
    assert plot_curves(tmp_path).size == (WIDTH, PANEL_HEIGHT)


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no run with log.csv or steps.csv in"):
        plot_curves(tmp_path)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    (
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0.13, 0.57, [0.2, 0.3, 0.4, 0.5]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (1e-5, 3.1e-5, [1e-5, 1.5e-5, 2e-5, 2.5e-5, 3e-5]),
    ),
)
def test_ticks_are_round_numbers(low, high, ticks):
    assert nice_ticks(low, high, 5) == pytest.approx(ticks)
