"""TensorBoard event files of a training run, and pictures with captions under them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from PIL import Image

from effcap.images import load_photo
from effcap.trainers.batching.packed import Preview
from effcap.trainers.engine.checkpoint import TrainState
from effcap.trainers.engine.logger import Logger, caption_previews
from effcap.trainers.engine.tensorboard import TensorBoardWriter, draw_caption
from helpers.data_maker import make_captioner
from helpers.event_files import read_events


class Batches:
    """Stands in for the 12 batches of an epoch, of 4 photos each."""

    batch_size = 4

    def __len__(self) -> int:
        return 12


def make_logger(folder, state, captioner, previews=()) -> Logger:
    logger = Logger([TensorBoardWriter(folder, state.step)], state, Batches(), previews)
    logger.set_model(captioner)
    logger.on_epoch_begin(state.epoch)
    return logger


def take_steps(logger, losses) -> None:
    for batch in range(logger.state.step, len(losses)):
        logger.state.step += 1
        logger.on_train_batch_end(batch, {"loss": losses[: batch + 1].mean()})


@pytest.fixture
def captioner():
    captioner = make_captioner()
    captioner.compile(keras.optimizers.SGD(0.25), jit_compile=False)
    return captioner


def test_event_files_hold_losses_rates_speed_and_captioned_photos(tmp_path, captioner, monkeypatch):
    photo = tmp_path / "photo.png"
    Image.new("RGB", (200, 100), "red").save(photo)
    images = {"images": load_photo(photo, captioner.encoder.image_size)}
    previews = [Preview(images, photo), Preview(images)]
    losses = np.arange(1.0, 13)
    assert caption_previews(captioner, previews) == [captioner.generate(photo)] * 2
    caption = "A red wall."
    monkeypatch.setattr(
        "effcap.trainers.engine.logger.caption_previews", lambda *arguments: [caption] * 2
    )
    with make_logger(tmp_path / "events", TrainState(), captioner, previews) as logger:
        take_steps(logger, losses)
        logger.write_epoch(captioner, {"loss": 6.5, "val_cross_entropy": 5.5})
    events = read_events(tmp_path / "events")
    assert events["step/loss"] == [(1, 1.0), (11, pytest.approx(losses[1:11].mean()))]
    assert events["step/learning_rate"] == [(1, 0.25), (11, 0.25)]
    ((step, speed),) = events["step/images_per_second"]
    assert step == 11 and speed > 0
    assert events["epoch/loss"] == [(12, 6.5)] and events["epoch/val_cross_entropy"] == [(12, 5.5)]
    ((step, picture),) = events["captions/0"]
    assert step == 12
    expected = draw_caption(Image.open(photo), caption)
    assert np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(expected))
    # A preview without a photo is shown as text.
    texts = [events[name] for name in events if name.startswith("captions/1")]
    assert texts == [[(12, caption)]]


def test_the_loss_curve_of_a_resumed_run_continues(tmp_path, captioner):
    losses = np.arange(1.0, 31)
    with make_logger(tmp_path, TrainState(step=5), captioner) as logger:
        take_steps(logger, losses[:12])
    events = read_events(tmp_path)
    # Keras's mean over the epoch includes the steps before the interruption.
    assert events["step/loss"] == [(11, pytest.approx(losses[6:11].mean()))]


@pytest.mark.parametrize("caption", ("犬が走る。", "Un café.", "كلب يجري"))
def test_captions_that_the_font_cannot_draw_are_shown_as_text(tmp_path, caption):
    writer = TensorBoardWriter(tmp_path, 0)
    writer.write_caption("captions/0", caption, Image.new("RGB", (64, 48), "red"), 3)
    writer.close(failed=False)
    events = read_events(tmp_path)
    ((_, photo),) = events.pop("captions/0")
    assert photo.size == (64, 48) and list(events.values()) == [[(3, caption)]]


@pytest.mark.parametrize("size", ((320, 200), (150, 320), (40, 30)))
def test_a_long_caption_is_wrapped_under_the_whole_photo(size):
    photo = Image.new("RGB", size, "red")
    short = draw_caption(photo, "A dog.")
    long = draw_caption(photo, "A brown dog with a very long tail runs over the grass. " * 2)
    assert short.width == long.width == 320 and long.height > short.height > size[1]
    pixels = np.asarray(long)  # (h,w,3)
    red = (pixels == (255, 0, 0)).all(axis=-1)  # (h,w)
    assert red.sum() == size[0] * size[1]
    strip = pixels[size[1] :]
    assert (strip.min(axis=(0, 2))[[0, 1, 2, -3, -2, -1]] == 255).all()  # no text is cut off
    assert (strip[-3:] == 255).all() and strip.min() < 50


def test_an_empty_caption_still_has_a_strip():
    assert draw_caption(Image.new("RGB", (64, 64)), "").height > 64
