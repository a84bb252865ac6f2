from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from ops.augment.boxes import Cutout
from ops.augment.moving import RandomCrop, RandomFlip
from runtime.errors import UsageError
from tests.ops.augment.by_hand import context, drawn_by, images


@pytest.mark.parametrize("horizontal, vertical", [(0.5, 0.0), (0.0, 0.5), (0.7, 0.4), (1.0, 1.0), (0.0, 0.0)])
def test_flips_are_numpys(horizontal, vertical):
    x, op = images(32), RandomFlip("x", "x", horizontal=horizontal, vertical=vertical)
    drawn = drawn_by(op, x.shape)
    expected = np.array(x)
    for i in range(len(expected)):
        expected[i] = expected[i, :, ::-1] if drawn["across"][i] else expected[i]
        expected[i] = expected[i, ::-1] if drawn["down"][i] else expected[i]
    assert np.array_equal(op({"x": x}, context())["x"], expected)


def test_flips_come_up_as_often_as_asked():
    drawn = drawn_by(RandomFlip("x", "x", horizontal=0.3, vertical=0.6), (20000, 1, 1, 1))
    assert abs(drawn["across"].mean() - 0.3) < 0.015 and abs(drawn["down"].mean() - 0.6) < 0.015
    assert abs((drawn["across"] & drawn["down"]).mean() - 0.18) < 0.015  # independent


@pytest.mark.parametrize("border", ["constant", "reflect"])
@pytest.mark.parametrize("padding", [0, 2, 5])
def test_crops_are_windows_of_padded_images(border, padding):
    x, op = images(40), RandomCrop(6, 5, "x", "x", padding=padding, border=border, fill=-1.0)
    drawn = drawn_by(op, x.shape)
    more: dict[str, Any] = {"mode": border} | ({"constant_values": -1.0} if border == "constant" else {})
    padded = np.pad(np.array(x), ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)), **more)
    corners = zip(padded, drawn["top"], drawn["left"], strict=True)
    expected = [image[top : top + 6, left : left + 5] for image, top, left in corners]
    assert np.array_equal(op({"x": x}, context())["x"], np.stack(expected))


def test_crop_offsets_are_uniform_and_independent():
    drawn = drawn_by(RandomCrop(32, 32, "x", "x", padding=4), (81000, 32, 32, 3))
    counts = np.zeros((9, 9))
    np.add.at(counts, (drawn["top"], drawn["left"]), 1)
    assert counts.min() > 1000 - 6 * 32 and counts.max() < 1000 + 6 * 32  # 1000 expected, deviation 32


@pytest.mark.parametrize("contained", [False, True])
@pytest.mark.parametrize("holes", [1, 3])
def test_holes_lie_where_they_were_drawn(contained, holes):
    x, op = images(30), Cutout("x", "x", size=(4, 3), holes=holes, fill=2.0, contained=contained)
    drawn, expected = drawn_by(op, x.shape), np.array(x)
    for i in range(len(expected)):
        for top, left in zip(drawn["top"][i], drawn["left"][i], strict=True):
            expected[i, max(top, 0) : max(top + 4, 0), max(left, 0) : max(left + 3, 0)] = 2.0
    assert np.array_equal(op({"x": x}, context())["x"], expected)
    if contained:
        assert (expected == 2).any(axis=(1, 2, 3)).all() and (drawn["top"] >= 0).all()
        assert drawn["top"].max() <= 9 - 4 and drawn["left"].max() <= 7 - 3


@pytest.mark.parametrize("contained, places, first", [(False, 9, -2), (True, 6, 0)])
def test_holes_are_everywhere_equally_often(contained, places, first):
    drawn = drawn_by(Cutout("x", "x", size=4, contained=contained), (places * 4000, 9, 9, 1))
    for name in ("top", "left"):
        counts = np.bincount(drawn[name].ravel() - first, minlength=places)
        assert len(counts) == places and counts.min() > 4000 - 5 * 63 and counts.max() < 4000 + 5 * 63


def test_an_image_and_its_mask_move_together():
    x = images(8)
    mask = (x[..., :1] > 0.5).astype(mx.uint8)
    for op in (RandomFlip(["x", "m"], ["a", "b"]), RandomCrop(5, 5, ["x", "m"], ["a", "b"], padding=1)):
        out = op({"x": x, "m": mask}, context())
        assert out["b"].dtype == mx.uint8
        assert np.array_equal(out["b"], np.array(out["a"])[..., :1] > 0.5)


def test_a_share_of_the_images_is_left_alone():
    x = images(4000, 4, 4, 1) + 1
    y = Cutout("x", "x", size=2, prob=0.25, contained=True)({"x": x}, context())["x"]
    assert abs(float((y == 0).any(axis=(1, 2, 3)).astype(mx.float32).mean()) - 0.25) < 0.03


def test_errors_name_values():
    x = images()
    for make in (
        lambda: RandomFlip("x", "x", horizontal=1.5),
        lambda: RandomCrop(0, 5, "x", "x"),
        lambda: RandomCrop(5, 5, "x", "x", border="wrap"),
        lambda: RandomCrop(10, 5, "x", "x")({"x": x}, context()),
        lambda: RandomCrop(5, 5, "x", "x", padding=7, border="reflect")({"x": x}, context()),
        lambda: Cutout("x", "x", size=8, contained=True)({"x": x}, context()),
        lambda: Cutout("x", "x", holes=0),
        lambda: RandomFlip("x", "x")({"x": x[0]}, context()),
    ):
        with pytest.raises(UsageError, match=r"\d|'wrap'"):
            make()
