"""Tests of random crops and color changes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from effcap.images import WHOLE
from effcap.trainers import Augmentation
from effcap.trainers.data.augmentation import View


def gray(value: int) -> Image.Image:
    """Returns a gray image."""
    return Image.new("RGB", (2, 2), (value,) * 3)


@pytest.mark.parametrize("smallest", (0.08, 0.5, 0.95))
def test_crops_keep_the_area_and_nearly_the_aspect_ratio(smallest):
    augmentation = Augmentation(random_crop=smallest)
    left, top, right, bottom = np.array([augmentation.view(i).region for i in range(2000)]).T
    width, height = right - left, bottom - top
    assert min(left.min(), top.min()) >= 0 and max(right.max(), bottom.max()) <= 1
    area, ratio = width * height, width / height
    assert smallest - 1e-6 <= area.min() < smallest + 0.05 * (1 - smallest)
    assert area.max() > 0.95 + 0.05 * smallest
    assert 3 / 4 - 1e-6 <= ratio.min() < 1 < ratio.max() <= 4 / 3 + 1e-6
    for offset in (left / (1 - width), top / (1 - height)):  # anywhere in the photo
        assert abs(np.mean(offset) - 0.5) < 0.05 and offset.min() < 0.05 and offset.max() > 0.95


def test_a_view_depends_only_on_its_random_number():
    augmentation = Augmentation(random_crop=0.5, color_jitter=0.3)
    draws = np.random.default_rng(0).integers(2**64, size=50, dtype=np.uint64)
    views = [augmentation.view(draw) for draw in draws]
    assert views == [augmentation.view(draw) for draw in draws]
    assert len({(view.region, view.color_matrix) for view in views}) == 50


def test_photos_are_changed_only_as_asked():
    assert Augmentation(horizontal_flip=True).view(7) == View(WHOLE, None)
    assert Augmentation(random_crop=0.5).view(7).color_matrix is None
    assert Augmentation(color_jitter=0.5).view(7).region == WHOLE
    image = gray(3)
    assert View().adjust_colors(image) is image


def test_color_changes_stay_in_range_and_keep_grays_gray():
    augmentation, brightness = Augmentation(color_jitter=0.2), []
    for draw in range(300):
        view = augmentation.view(draw)
        middle = np.asarray(view.adjust_colors(gray(100)), int)
        assert np.ptp(middle) <= 1
        brightness.append(middle.mean())
        # (100 * brightness - 127.5) * contrast + 127.5, with both from 0.8 to 1.2
        assert 69 <= middle.mean() <= 123
        red = np.asarray(view.adjust_colors(Image.new("RGB", (1, 1), (200, 40, 40))), int)[0, 0]
        assert red[0] > red[1:].max() + 60  # red remains red
    assert np.ptp(brightness) > 30


def test_colors_at_full_strength_are_clipped():
    augmentation = Augmentation(color_jitter=1.0)
    for draw in range(100):
        view = augmentation.view(draw)
        dark, bright = (
            np.asarray(view.adjust_colors(gray(value)), int).mean() for value in (0, 255)
        )
        assert bright >= dark - 1


@pytest.mark.parametrize(
    "wrong",
    (
        {"random_crop": 0},
        {"random_crop": 1.5},
        {"random_crop": float("nan")},
        {"color_jitter": -0.1},
        {"color_jitter": 2},
    ),
)
def test_values_out_of_range_are_rejected(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"Received: {name}={value}"):
        Augmentation(**wrong)
