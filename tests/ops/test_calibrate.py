"""Calibrate on the device against the calibrator that wrote the file."""

import mlx.core as mx
import numpy as np
import pytest

from ops.tensor.calibrate import Calibrate
from runtime.errors import UsageError
from runtime.op import Context
from tests.training.by_hand import KEY
from traces.adapt.pbm_calibrator import Calibrator
from training.network import Network

RNG = np.random.default_rng(0)


def out(op, x, mode="test"):
    zero = mx.array(0, mx.int32)
    return Network([op]).forward({"p": mx.array(x.astype(np.float32))}, Context(mode, KEY, zero, zero))


def drawn(rows, classes):
    """Overconfident probabilities and the labels they are about."""
    logits = RNG.normal(size=(rows, classes))
    truth = (logits + RNG.gumbel(size=logits.shape)).argmax(-1)
    p = np.exp(3 * logits)
    return p / p.sum(-1, keepdims=True), truth


@pytest.mark.parametrize("classes", [1, 4])
def test_the_device_calibrates_as_the_host_does(tmp_path, classes):
    p, truth = drawn(3000, max(classes, 2))
    p = p[:, 1:] if classes == 1 else p
    calibrator = Calibrator.fitted(truth, p)
    calibrator.save(tmp_path / "c.json")
    new = drawn(500, max(classes, 2))[0]
    new = new[:, 1:] if classes == 1 else new
    run = mx.compile(lambda x: Calibrate("p", "q", tmp_path / "c.json").one(x))
    found, wanted = np.array(run(mx.array(new.astype(np.float32)))), calibrator(new)
    close = np.abs(found - wanted) < 1e-5
    assert found.shape == new.shape and close.mean() > 0.998  # a value on a bin's edge may fall on either side
    assert np.abs(found - new).mean() > 0.02


def test_the_file_is_read_late_and_functions_will_do(tmp_path):
    op, p = Calibrate("p", "q", str(tmp_path / "late.json")), drawn(50, 3)[0]
    assert set(out(op, p, "eval")) == {"p"}
    with pytest.raises(UsageError, match="finds no file .*late.json"):
        out(op, p)
    Calibrator.fitted(np.arange(50) % 3, p).save(tmp_path / "late.json")
    assert out(op, p)["q"].shape == (50, 3)
    with pytest.raises(UsageError, match=r"calibrates 3 classes, got probabilities of shape \(50, 4\)"):
        out(op, drawn(50, 4)[0])
    np.testing.assert_allclose(out(Calibrate("p", "q", mx.square), p)["q"], p**2, rtol=1e-5)
