"""TensorBoard event files of a training run."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from PIL import Image

from effcap.images import load_photo, load_thumbnail
from effcap.trainers.batching.packed import Preview
from effcap.trainers.engine.caption_picture import HEIGHT, WIDTH, draw_caption
from effcap.trainers.engine.checkpoint import TrainState
from effcap.trainers.engine.logger import Logger, caption_previews, load_preview_photo
from effcap.trainers.engine.tensorboard import TensorBoardWriter
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
    expected = draw_caption(load_thumbnail(photo, (HEIGHT, WIDTH)), caption)
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


def test_captions_that_no_font_can_draw_are_shown_as_text(tmp_path):
    caption = "\U0001e030\U0001e031"  # letters that came with Unicode 15
    assert draw_caption(Image.new("RGB", (64, 48)), caption) is None
    writer = TensorBoardWriter(tmp_path, 0)
    writer.write_caption("captions/0", caption, Image.new("RGB", (64, 48), "red"), 3)
    writer.close(failed=False)
    events = read_events(tmp_path)
    ((_, picture),) = events.pop("captions/0")
    assert picture.size == draw_caption(Image.new("RGB", (9, 9)), "").size
    assert list(events.values()) == [[(3, caption)]]


def test_a_photo_that_became_unreadable_is_a_placeholder(tmp_path):
    picture = load_preview_photo(Preview({}, tmp_path / "gone.jpg"))
    assert picture.size == (WIDTH, HEIGHT) and len(picture.getcolors(10**5)) > 2
    assert load_preview_photo(Preview({})) is None
