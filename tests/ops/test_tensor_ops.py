"""Normalize, Minmax, Onehot, UnHadamard, Resize and Gather: against PyTorch and FastEstimator, and by hand."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from domains.codes import hadamard
from ops.tensor.gather import Gather
from ops.tensor.resize import Resize, Resize3D
from ops.tensor.values import Minmax, Normalize, Onehot, UnHadamard
from runtime.errors import UsageError
from runtime.op import Context
from tests.training.by_hand import KEY

FIXTURE = json.loads((Path(__file__).parent / "fixtures_tensor.json").read_text())
ZERO = mx.array(0, mx.int32)


def wave(*shape):
    return mx.array(np.sin(0.7 * np.arange(np.prod(shape))).reshape(shape).astype(np.float32))


def out(op, **data):
    """What the op writes as y."""
    return np.array(op({name: mx.array(x) for name, x in data.items()}, Context("train", KEY, ZERO, ZERO))["y"])


@pytest.mark.parametrize("case", FIXTURE["resize"], ids=lambda c: f"{c['mode']}-{c['shape']}")
def test_resized_images_are_torchs(case):
    found = out(Resize("x", "y", case["shape"], case["mode"]), x=wave(2, 7, 5, 3))
    assert found.shape == (2, *case["shape"], 3)
    np.testing.assert_allclose(found[1, ..., 1], case["values"], atol=2e-5)


@pytest.mark.parametrize("case", FIXTURE["resize3d"], ids=lambda c: f"{c['mode']}-{c['shape']}")
def test_resized_volumes_are_fastestimators(case):
    found = out(Resize3D("x", "y", case["shape"], case["mode"]), x=wave(1, 4, 3, 5, 2))
    np.testing.assert_allclose(found[0, ..., 1], case["values"], atol=2e-5)


def test_resize_keeps_types_where_it_can():
    labels = np.arange(12, dtype=np.uint8).reshape(1, 3, 4, 1)
    found = out(Resize("x", "y", (6, 8)), x=labels)
    assert found.dtype == np.uint8 and np.array_equal(found, labels.repeat(2, 1).repeat(2, 2))
    same = out(Resize("x", "y", (3, 4), "area"), x=labels)
    assert same.dtype == np.float32 and np.array_equal(same, labels)


def test_values_are_fastestimators():
    images = 255 * mx.abs(wave(2, 2, 2, 3))
    np.testing.assert_allclose(out(Normalize("x", "y"), x=images), FIXTURE["normalize"], atol=2e-5)
    np.testing.assert_allclose(out(UnHadamard("x", "y", 5), x=wave(3, 8)), FIXTURE["unhadamard"], atol=2e-5)
    assert hadamard(5).tolist() == FIXTURE["codes"]
    picked = out(Gather("x", "y", "i"), x=wave(2, 3, 4), i=np.array([2, 0]))
    np.testing.assert_allclose(picked, FIXTURE["gather"], atol=2e-5)


def test_gather_picks_by_one_key_or_by_several():
    x, z = np.arange(12).reshape(3, 4), np.arange(18).reshape(3, 3, 2)
    data = {"x": mx.array(x), "z": mx.array(z), "i": mx.array([[1], [0], [2]]), "j": mx.array([0, 2, 1])}
    both = Gather(["x", "z"], ["p", "q"], indices=["j", "i"])(data, Context("train", KEY, ZERO, ZERO))
    assert both["p"].tolist() == [0, 6, 9]
    assert both["q"].tolist() == [[2, 3], [6, 7], [16, 17]]
    assert out(Gather("x", "y", "i"), **data).tolist() == [1, 4, 10]
    assert out(Gather("z", "y"), **data).tolist() == [[4, 5], [10, 11], [16, 17]]


def test_each_channel_is_normalized_by_its_own_numbers():
    x = np.array([[[[0, 100, 255]]]], np.uint8)
    found = out(Normalize("x", "y", (0.5, 0.0, 1.0), (0.5, 0.25, 1.0)), x=x)
    np.testing.assert_allclose(found, [[[[-1, 100 / 63.75, 0]]]], rtol=1e-6)
    np.testing.assert_allclose(out(Normalize("x", "y", 2.0, 4.0, 1.0), x=x), (x - 2.0) / 4, rtol=1e-6)


def test_each_sample_is_scaled_from_its_own_range():
    x = np.array([[2, 4, 6], [-10, 0, 30], [7, 7, 7]], np.int32)
    found = out(Minmax("x", "y", new_min=-1.0), x=x)
    np.testing.assert_allclose(found, [[-1, 0, 1], [-1, -0.5, 1], [-1, -1, -1]], rtol=1e-6)


def test_one_hot_rows():
    smooth = out(Onehot("x", "y", 4, label_smoothing=0.2), x=np.array([[1], [9]]))
    np.testing.assert_allclose(smooth, [[0.05, 0.85, 0.05, 0.05], [0.05] * 4], rtol=1e-6)
    assert out(Onehot("x", "y", 3), x=np.array([[0, 2]])).tolist() == [[[1, 0, 0], [0, 0, 1]]]


def test_every_code_of_a_class_is_read_as_that_class():
    for classes, length in ((2, None), (7, None), (10, 32)):
        codes = hadamard(classes, length)
        assert len({code.tobytes() for code in codes}) == classes
        probabilities = out(UnHadamard("x", "y", classes, length), x=codes)
        assert np.array_equal(probabilities.argmax(-1), np.arange(classes)) and probabilities.min() > 0
        np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(probabilities.max(-1), 0.99999, atol=1e-5)


SMOOTH = {
    "normalize": Normalize("x", "y"), "minmax": Minmax("x", "y"), "unhadamard": UnHadamard("x", "y", 4),
    "area": Resize("x", "y", (2, 5), "area"), "bilinear": Resize("x", "y", (5, 2), "bilinear"),
    "gather": Gather("x", "y"),
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_pass_a_compiled_op(name):
    x = wave(2, 4) if name == "unhadamard" else wave(2, 3, 4, 3)
    way = mx.array(np.cos(np.arange(x.size)).reshape(x.shape).astype(np.float32))
    weight = mx.cos(mx.arange(1000))

    def loss(x):
        y = SMOOTH[name]({"x": x}, Context("train", KEY, ZERO, ZERO))["y"]
        return (y.reshape(-1) * weight[: y.size]).sum()

    moved = (float(loss(x + 1e-3 * way)) - float(loss(x - 1e-3 * way))) / 2e-3
    assert abs(moved) > 1e-3
    gradient = mx.compile(mx.grad(loss))(x)
    assert float((gradient * way).sum()) == pytest.approx(moved, rel=0.02, abs=2e-3)
    assert float(mx.jvp(loss, [x], [way])[1][0]) == pytest.approx(moved, rel=0.02, abs=2e-3)


def test_errors_name_values():
    for make, message in (
        (lambda: Normalize("x", "y", std=0.0), "above 0, got 0.0"),
        (lambda: out(Normalize("x", "y"), x=wave(1, 2, 2, 4)), "mean has 3 numbers, got 4 channels"),
        (lambda: Minmax("x", "y", new_min=1.0), "above new_min, got 1.0"),
        (lambda: out(Onehot("x", "y", 3), x=wave(2)), "integer labels, got mlx.core.float32"),
        (lambda: UnHadamard("x", "y", 5, 6), "got n_classes=5 and code_length=6"),
        (lambda: hadamard(5, 4), "got n_classes=5 and code_length=4"),
        (lambda: out(UnHadamard("x", "y", 5), x=wave(2, 5)), r"needs codes \(B, 8\), got shape \(2, 5\)"),
        (lambda: Resize("x", "y", (2, 2), "cubic"), "nearest, area, bilinear, got 'cubic'"),
        (lambda: Resize3D("x", "y", (2, 2)), r"\(H, W, D\), got \(2, 2\)"),
        (lambda: out(Resize("x", "y", (2, 2)), x=wave(2, 2)), r"got shape \(2, 2\)"),
        (lambda: Gather(["x", "z", "w"], ["x", "z", "w"], ["i", "j"]), "3 inputs, 3 outputs and 2 indices"),
        (lambda: out(Gather("x", "y", "i"), x=wave(2, 3), i=np.arange(3)), "one integer index a row"),
    ):
        with pytest.raises(UsageError, match=message):
            make()
