"""What people see of a run: progress, TensorBoard."""

from __future__ import annotations

import io

import keras
import numpy as np
import pytest
from helpers.data_maker import make_captioner
from helpers.event_files import read_events
from PIL import Image
from rich.console import Console

from effcap.images import load_photo
from effcap.trainers.batching.packed import Sample
from effcap.trainers.engine.checkpoint import Position
from effcap.trainers.engine.tensorboard import TensorBoard, caption_picture
from effcap.utils import progress
from effcap.utils.progress import Bar, track


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves 10 seconds at each look."""
    now = iter(range(0, 10**6, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))


def test_a_log_file_gets_a_line_now_and_then(capsys, clock):
    with Bar("training", 100, every=25) as bar:
        for _ in range(9):
            bar.advance("loss 1.5")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0] == "training: 3 of 100, 0:16:10 left, loss 1.5"


def test_the_time_left_counts_only_steps_that_were_taken_now(capsys, clock):
    with Bar("training", 100, every=25, done=90) as bar:
        for _ in range(4):
            bar.advance()
    assert capsys.readouterr().err.splitlines()[0] == "training: 93 of 100, 0:01:10 left"


def test_a_terminal_gets_a_bar_and_lines_above_it(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(
        progress, "Console", lambda stderr: Console(file=file, force_terminal=True, width=80)
    )
    with Bar("training", 2) as bar:
        bar.advance("loss 1.5")
        bar.say("epoch 1 of 2: loss 1.5, cross-entropy 1.4, validation cross-entropy 1.6, 9 s x")
        bar.advance()
    text = file.getvalue()
    assert "2/2" in text and "loss 1.5" in text
    assert "cross-entropy 1.6, 9 s x" in text  # in one piece
    assert text.endswith("\x1b[?25h")  # the cursor is back


def test_tracked_items_pass_unchanged(capsys):
    assert list(track(iter("abc"), 3, "letters")) == list("abc") == list(track("abc", 3, None))


class Batches:
    """As many as an epoch has, of so many photos each."""

    batch_size = 4

    def __len__(self) -> int:
        return 12


def board_of(folder, position, captioner, samples=()) -> TensorBoard:
    board = TensorBoard(folder, position, Batches(), samples)
    board.set_model(captioner)
    board.on_epoch_begin(position.epoch)
    return board


def take_steps(board, losses) -> None:
    for batch in range(board.position.steps, len(losses)):
        board.position.steps += 1
        board.on_train_batch_end(batch, {"loss": losses[: batch + 1].mean()})


@pytest.fixture
def captioner():
    captioner = make_captioner()
    captioner.compile(keras.optimizers.SGD(0.25), jit_compile=False)
    return captioner


def test_event_files_hold_losses_learning_rate_pace_and_captioned_photos(tmp_path, captioner):
    photo = tmp_path / "photo.png"
    Image.new("RGB", (200, 100), "red").save(photo)
    images = {"images": load_photo(photo, captioner.encoder.image_size)}
    samples = [Sample(images, photo), Sample(images)]
    board = board_of(tmp_path / "events", Position(), captioner, samples)
    losses = np.arange(1.0, 13)
    take_steps(board, losses)
    board.end_epoch(captioner, {"loss": 6.5, "val_cross_entropy": 5.5})
    board.close()
    events = read_events(tmp_path / "events")
    assert events["step/loss"] == [(1, 1.0), (11, pytest.approx(losses[1:11].mean()))]
    assert events["step/learning_rate"] == [(1, 0.25), (11, 0.25)]
    ((step, pace),) = events["step/images_per_second"]
    assert step == 11 and pace > 0
    assert events["epoch/loss"] == [(12, 6.5)] and events["epoch/val_cross_entropy"] == [(12, 5.5)]
    ((step, picture),) = events["captions/0"]
    assert step == 12
    wanted = caption_picture(Image.open(photo), captioner.generate(photo))
    assert np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(wanted))
    # What has no photo is shown as text.
    texts = [events[name] for name in events if name.startswith("captions/1")]
    assert texts == [[(12, captioner.generate(photo))]]


def test_the_curve_of_a_resumed_run_goes_on(tmp_path, captioner):
    losses = np.arange(1.0, 31)
    board = board_of(tmp_path, Position(steps=5), captioner)
    take_steps(board, losses[:12])
    board.close()
    events = read_events(tmp_path)
    # Keras's mean is that since the epoch began, what the first process saw included.
    assert events["step/loss"] == [(11, pytest.approx(losses[6:11].mean()))]


@pytest.mark.parametrize("size", ((320, 200), (150, 320), (40, 30)))
def test_a_long_caption_is_wrapped_under_the_whole_photo(size):
    photo = Image.new("RGB", size, "red")
    short = caption_picture(photo, "A dog.")
    long = caption_picture(photo, "A brown dog with a very long tail runs over the grass. " * 2)
    assert short.width == long.width == 320 and long.height > short.height > size[1]
    pixels = np.asarray(long)
    red = (pixels == (255, 0, 0)).all(axis=-1)
    assert red.sum() == size[0] * size[1]
    strip = pixels[size[1] :]
    assert (strip.min(axis=(0, 2))[[0, 1, 2, -3, -2, -1]] == 255).all()  # no text is cut off
    assert (strip[-3:] == 255).all() and strip.min() < 50


def test_an_empty_caption_has_its_picture():
    assert caption_picture(Image.new("RGB", (64, 64)), "").height > 64
