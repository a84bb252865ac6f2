"""Pillow's ops and RUA: against FastEstimator's, by hand, and what their draws do."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataloaders.ops import pillow, rua
from dataloaders.ops.meta import Fuse, Sometimes
from dataloaders.ops.numpy_op import NumpyOp
from dataloaders.ops.random_shapes import KINDS, RandomShapes, filled
from dataloaders.ops.rua import RUA
from dataloaders.ops.values import LambdaOp, Onehot
from runtime.errors import UsageError

FIXTURE = json.loads((Path(__file__).parent / "fixtures_rua.json").read_text())
ROW, COLUMN, CHANNEL = np.ogrid[:6, :8, :3]
IMAGE = (37 * ROW + 91 * COLUMN + 53 * CHANNEL + 7 * ROW * COLUMN * (CHANNEL + 1)).astype(np.uint8)


def state(seed=0):
    return {"mode": "train", "epoch": 0, "ds_id": "", "rng": np.random.default_rng(seed)}


def kind(name):
    return getattr(rua, name)


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda case: f"{case['op']}{case['drawn']}")
def test_images_are_fastestimators(case):
    image = IMAGE // 2 + 20 if case["op"] == "AutoContrast" else IMAGE
    found = kind(case["op"])("x", "x").changed(image, case["drawn"])
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - case["pixels"]).max() <= 1  # Pillow 10 there


@pytest.mark.parametrize("level", FIXTURE["levels"])
def test_levels_are_fastestimators(level):
    wanted, op = FIXTURE["levels"][level], RUA("x", "x", level=int(level))
    assert op.count == pytest.approx(wanted["guaranteed"] + wanted["probability"])
    by_name: dict[str, Any] = {type(inner).__name__: inner for inner in op.ops}
    assert len(by_name) == 14
    for name in ("Rotate", "Color", "ShearX", "TranslateY"):
        assert by_name[name].limit == pytest.approx(wanted[name])
    assert by_name["Posterize"].ranges == [tuple(wanted["Posterize"])]
    assert by_name["Solarize"].limit == pytest.approx((0, wanted["Solarize"]))


def test_meaning_on_made_images():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    same = ramp.repeat(3, 2)
    assert np.array_equal(rua.Solarize("x", "x").changed(ramp, 200), np.where(ramp < 200, ramp, 255 - ramp))
    assert np.array_equal(rua.Posterize("x", "x", num_bits=2)({"x": ramp}, state())["x"], ramp // 64 * 64)
    each = rua.Posterize("x", "x", num_bits=(0, 8, (1, 1)))({"x": same}, state())["x"]
    assert np.array_equal(each, np.concatenate([0 * ramp, ramp, ramp // 128 * 128], 2))
    assert np.array_equal(pillow.TranslateX("x", "x").changed(ramp, 0.25)[:, :-4], ramp[:, 4:])
    assert np.array_equal(pillow.TranslateY("x", "x").changed(ramp, -0.5)[8:], ramp[:8])
    assert (pillow.TranslateY("x", "x").changed(ramp, -0.5)[:8] == 0).all()
    assert np.array_equal(rua.Rotate("x", "x").changed(ramp, 90), np.rot90(ramp))
    half = pillow.Brightness("x", "x").changed(ramp, -0.5)
    assert half.shape == ramp.shape and np.abs(half - ramp / 2.0).max() <= 1
    assert np.array_equal(pillow.Contrast("x", "x").changed(ramp[..., 0], -1.0), np.full((16, 16), 128))
    assert np.ptp(pillow.Color("x", "x").changed(IMAGE, -1.0), axis=2).max() == 0
    stretched = pillow.AutoContrast("x", "x")({"x": ramp // 5 + 50}, state())["x"]
    assert stretched.min() == 0 and stretched.max() == 255
    flat = rua.Equalize("x", "x")({"x": (ramp.astype(int) ** 2 // 255).astype(np.uint8)}, state())["x"]
    assert abs(np.median(flat.astype(float)) - 128) < 8 < abs(np.median(ramp.astype(float) ** 2 / 255) - 128)
    for name in ("Brightness", "Contrast", "Color", "Sharpness", "ShearX", "ShearY", "TranslateX", "Rotate"):
        assert np.array_equal(kind(name)("x", "x").changed(IMAGE, 0.0), IMAGE), name


def test_draws_fill_the_range_and_are_shared_by_the_inputs_of_a_sample():
    op = pillow.Brightness(["x", "z"], ["x", "z"], limit=(-0.4, 0.2))
    given, flat = state(), np.full((1, 1, 3), 100, np.uint8)
    found = [op({"x": flat, "z": flat}, given) for _ in range(300)]
    values = np.array([row["x"][0, 0, 0] for row in found])
    assert np.array_equal(values, [row["z"][0, 0, 0] for row in found])
    assert values.min() in range(60, 64) and values.max() in range(117, 121) and abs(values.mean() - 90) < 4
    batch = op.forward_batch([np.stack([flat] * 50)] * 2, state())
    assert len(np.unique(batch[0])) > 20 and np.array_equal(batch[0], batch[1])
    rows = pillow.AutoContrast("x", "x").forward_batch(np.stack([IMAGE, IMAGE[::-1]]), state())
    assert np.array_equal(rows[0], rows[1][::-1]) and not np.array_equal(rows[0], rows[1])
    op.set_rua_level(0.5)
    op.set_rua_level(0.5)  # once more is no weaker
    assert op.limit == pytest.approx((-0.25, 0.05))


def test_rua_applies_as_many_as_its_level_says():
    def count(level, size):
        ops = [Add("n", "n") for _ in range(size)]
        given, op = state(), RUA("x", "x", choices=ops, level=level)
        return Counter(op({"x": IMAGE, "n": 0}, given)["n"] for _ in range(400))

    assert count(0, 14) == {1: 400} and count(30, 14) == {5: 400} and count(30, 2) == {2: 400}
    found = count(18, 14)
    assert set(found) == {3, 4} and abs(found[4] / 400 - 0.4) < 0.08


def test_rua_draws_all_of_its_ops_as_often():
    names, given = ("a", "b", "c"), state()
    op, data = RUA("x", "x", choices=[Add(name, name) for name in names], level=0), {name: 0 for name in names}
    for _ in range(600):
        data |= {name: value for name, value in op({"x": IMAGE, **data}, given).items() if name != "x"}
    assert sum(data.values()) == 600 and all(abs(data[name] - 200) < 40 for name in names)


class Add(NumpyOp):
    def set_rua_level(self, magnitude_coef):
        self.level = magnitude_coef

    def forward(self, data, state):
        return data + 1


def test_rua_draws_every_op_and_writes_its_own_output():
    given, op = state(), RUA("x", "y", level=30)
    found = {op({"x": IMAGE}, given)["y"].tobytes() for _ in range(50)}
    assert len(found) > 40 and op.inputs == ("x",) and op.outputs == ("y",)
    batch = RUA(["x"], ["y"]).forward_batch([np.stack([IMAGE] * 20)], state())["y"]
    assert batch.shape == (20, 6, 8, 3) and len({row.tobytes() for row in batch}) > 15
    first, again = (RUA("x", "x")({"x": IMAGE}, state(3))["x"] for _ in range(2))
    assert np.array_equal(first, again)
    assert np.array_equal(
        RUA("x", "x", level=0, choices=["Rotate", "Identity", "Color"])({"x": IMAGE}, state())["x"], IMAGE
    )


def test_choices():
    def names(*choices):
        return [type(op).__name__ for op in RUA("x", "x", choices=choices).ops]

    assert names("Rotate", "ShearX") == ["Rotate", "ShearX"]
    assert set(rua.DEFAULTS) - set(names("!Rotate", "!Color")) == {"Rotate", "Color"}
    strong = Add("x", "x")
    assert names("defaults", strong)[-1] == "Add" and len(names("defaults", strong)) == 15
    assert strong.level == pytest.approx(0.6)
    nested = Sometimes(Fuse([Add("x", "x"), LambdaOp(abs, "x", "x")]))
    assert names(nested) == ["Sometimes"]
    for choices, message in (
        (["defaults", "Rotate"], "not a mixture"), (["defaults", "!Rotate"], "not a mixture"),
        (["!Solarize", "Rotate"], "not a mixture"), (["Rotat"], "no augmentation Rotat; it has Rotate"),
        ([Onehot("x", "x", 3)], "which Onehot lacks"), ([], "got no ops"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            RUA("x", "x", choices=choices)
    with pytest.raises(UsageError, match="level must lie in 0..30, got 31"):
        RUA("x", "x", level=31)
    with pytest.raises(UsageError, match="needs uint8 images"):
        pillow.Brightness("x", "x")({"x": IMAGE / 255}, state())


def test_shapes_are_drawn_over_the_image():
    grey, given = np.full((20, 30, 3), 100, np.uint8), state()
    op = RandomShapes("x", "x", max_shapes=2, max_size=9, intensity_range=((0, 0), (254, 254), (100, 100)),
                      transparency_range=(0.5, 0.5))  # fmt: skip
    sizes = []
    for _ in range(60):
        found = op({"x": grey}, given)["x"]
        hit = (found != grey).any(-1)
        assert np.array_equal(found[hit], np.broadcast_to([50, 177, 100], (hit.sum(), 3)))
        sizes.append(hit.sum())
    assert 0 < min(sizes) and 20 < max(sizes) <= 2 * 81
    assert (op({"x": grey}, state(1))["x"] == op({"x": grey}, state(1))["x"]).all()
    light = RandomShapes("x", "x")({"x": np.full((8, 8), 0.5, np.float32)}, state())["x"]
    assert light.dtype == np.float32 and light.shape == (8, 8) and 0 <= light.min() < light.max() <= 1
    op.set_rua_level(0.0)
    assert np.array_equal(op({"x": grey}, given)["x"], grey)
    areas = {name: filled(name, (2, 3, 22, 23), 30, 30).sum() / 441 for name in KINDS}
    assert areas["rectangle"] == 1 and abs(areas["circle"] - np.pi / 4) < 0.03 and abs(areas["triangle"] - 0.5) < 0.06
    with pytest.raises(UsageError, match="within|in 0..254"):
        RandomShapes("x", "x", intensity_range=(0, 255))
