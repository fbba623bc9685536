"""Photos are varied within the limits given, and the same way for the same random number."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from effcap.images import WHOLE
from effcap.trainers import Augmentation
from effcap.trainers.data.augmentation import View


def grey(value: int) -> Image.Image:
    return Image.new("RGB", (2, 2), (value,) * 3)


@pytest.mark.parametrize("crop", (0.08, 0.5, 0.95))
def test_crops_keep_the_share_asked_for_and_nearly_the_proportions(crop):
    augmentation = Augmentation(crop=crop)
    left, top, right, bottom = np.array([augmentation.view(i).region for i in range(2000)]).T
    width, height = right - left, bottom - top
    assert min(left.min(), top.min()) >= 0 and max(right.max(), bottom.max()) <= 1
    area, ratio = width * height, width / height
    assert crop - 1e-6 <= area.min() < crop + 0.05 * (1 - crop) and area.max() > 0.95 + 0.05 * crop
    assert 3 / 4 - 1e-6 <= ratio.min() < 1 < ratio.max() <= 4 / 3 + 1e-6
    for share in (left / (1 - width), top / (1 - height)):  # anywhere in the photo
        assert abs(np.mean(share) - 0.5) < 0.05 and share.min() < 0.05 and share.max() > 0.95


def test_the_same_number_gives_the_same_view_and_others_give_others():
    augmentation = Augmentation(crop=0.5, colour=0.3)
    numbers = np.random.default_rng(0).integers(2**64, size=50, dtype=np.uint64)
    views = [augmentation.view(number) for number in numbers]
    assert views == [augmentation.view(number) for number in numbers]
    assert len({(view.region, view.colours) for view in views}) == 50


def test_nothing_is_varied_unless_asked():
    assert Augmentation(mirror=True).view(7) == View(WHOLE, None)
    assert Augmentation(crop=0.5).view(7).colours is None
    assert Augmentation(colour=0.5).view(7).region == WHOLE
    image = grey(3)
    assert View().paint(image) is image


def test_colours_vary_within_their_strength_and_greys_stay_grey():
    augmentation, brightness = Augmentation(colour=0.2), []
    for number in range(300):
        view = augmentation.view(number)
        middle = np.asarray(view.paint(grey(100)), int)
        assert np.ptp(middle) <= 1
        brightness.append(middle.mean())
        # (100 * brightness - 127.5) * contrast + 127.5, with both from 0.8 to 1.2
        assert 69 <= middle.mean() <= 123
        red = np.asarray(view.paint(Image.new("RGB", (1, 1), (200, 40, 40))), int)[0, 0]
        assert red[0] > red[1:].max() + 60  # red is still red
    assert np.ptp(brightness) > 30


def test_full_strength_is_clipped_not_wrapped():
    augmentation = Augmentation(colour=1.0)
    for number in range(100):
        view = augmentation.view(number)
        dark, bright = (np.asarray(view.paint(grey(value)), int).mean() for value in (0, 255))
        assert bright >= dark - 1


@pytest.mark.parametrize(
    "wrong", ({"crop": 0}, {"crop": 1.5}, {"crop": float("nan")}, {"colour": -0.1}, {"colour": 2})
)
def test_values_out_of_range_are_named(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"Received: {name}={value}"):
        Augmentation(**wrong)
