import colorsys
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from ops.augment.color import NAMES, ColorJitter, hue_shifted
from runtime.errors import UsageError
from tests.ops.augment.by_hand import context, drawn_by, images, jittered

STRONG: dict[str, Any] = {"brightness": 0.8, "contrast": 0.7, "saturation": 0.9, "hue": 0.5}


def test_each_image_by_hand():
    x, op = images(8), ColorJitter("x", "x", **STRONG)
    drawn = drawn_by(op, x.shape)
    expected = [jittered(np.array(x[i]), *(drawn[name][i] for name in NAMES)) for i in range(8)]
    assert np.allclose(op({"x": x}, context())["x"], np.stack(expected), atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_each_alone_is_albumentations(name):
    A = pytest.importorskip("albumentations")
    x = images(5, 8, 8)
    nothing = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    op = ColorJitter("x", "x", **{**{k: 0 for k in NAMES}, name: STRONG[name]})
    drawn, found = drawn_by(op, x.shape), op({"x": x}, context())["x"]
    for i in range(5):
        same = A.ColorJitter(**{**nothing, name: (float(drawn[name][i]),) * 2}, p=1.0)
        assert np.allclose(found[i], same(image=np.array(x[i]))["image"], atol=2e-3 if name == "hue" else 1e-5)


def test_hue_of_grey_and_pure_colours():
    for colour in ([0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]):
        for turns in (-0.5, -0.1, 0.0, 1 / 3, 0.5):
            h, s, v = colorsys.rgb_to_hsv(*colour)
            found = hue_shifted(mx.array(colour, mx.float32)[None, None, None], mx.array(turns).reshape(1, 1, 1, 1))
            assert np.allclose(found.reshape(3), colorsys.hsv_to_rgb((h + turns) % 1, s, v), atol=1e-6)


def test_another_range_of_values():
    x = images(6)
    plain, shifted = (ColorJitter("x", "x", value_range=r, **STRONG) for r in ((0.0, 1.0), (-1.0, 1.0)))
    assert np.allclose(shifted({"x": 2 * x - 1}, context())["x"], 2 * plain({"x": x}, context())["x"] - 1, atol=1e-5)


def test_factors_are_uniform_in_their_ranges():
    drawn = drawn_by(
        ColorJitter("x", "x", brightness=0.2, contrast=1.5, saturation=(0.2, 0.4), hue=0.1), (20000, 1, 1, 3)
    )
    ranges = {"brightness": (0.8, 1.2), "contrast": (0, 2.5), "saturation": (0.2, 0.4), "hue": (-0.1, 0.1)}
    for name, (low, high) in ranges.items():
        values = (drawn[name] - low) / (high - low)
        assert values.min() > -1e-5 and values.max() < 1 + 1e-5
        assert np.abs(np.histogram(values, 10, (0, 1))[0] - 2000).max() < 5 * 45, name
    assert abs(np.corrcoef(drawn["brightness"], drawn["contrast"])[0, 1]) < 0.03


def test_nothing_asked_is_nothing_done():
    x = images()
    assert np.array_equal(
        ColorJitter("x", "x", brightness=0, contrast=0, saturation=0, hue=0)({"x": x}, context())["x"], x
    )


def test_grey_images_change_brightness_and_contrast_only():
    x, op = images(channels=1), ColorJitter("x", "x", **STRONG)
    drawn, found = drawn_by(op, x.shape), np.array(op({"x": x}, context())["x"])
    for i in range(len(found)):
        y = np.clip(np.array(x[i]) * drawn["brightness"][i], 0, 1)
        y = np.clip(drawn["contrast"][i] * y + (1 - drawn["contrast"][i]) * y.mean(), 0, 1)
        assert np.allclose(found[i], y, atol=1e-6)


def test_errors_name_values():
    wrong: list[dict[str, Any]] = [
        {"hue": 0.6}, {"brightness": -1}, {"contrast": (2, 1)}, {"value_range": (1, 0)}, {"prob": 2},
    ]  # fmt: skip
    for settings in wrong:
        with pytest.raises(UsageError, match=r"\d"):
            ColorJitter("x", "x", **settings)
    for x in (images().astype(mx.uint8), images(channels=2)):
        with pytest.raises(UsageError, match="1 or 3 channels"):
            ColorJitter("x", "x")({"x": x}, context())
