"""Ops run slice by slice: equal to the whole where they must be, one update for all slices, in the compiled step."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

from ops.loss_op import LossOp
from ops.model_op import ModelOp
from ops.sliced import Sliced
from ops.tensor.gradient import GradientOp
from runtime.errors import UsageError
from runtime.op import Context, TensorOp
from runtime.slicers import AxisSlicer, MeanUnslicer, SlidingSlicer
from training.forward import ForwardStep
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp


class Squares(LossOp):
    def per_sample(self, data, state):
        return (data[0] - data[1]).square().reshape(len(data[0]), -1).mean(1)


class Mean(TensorOp):
    def forward(self, data, state):
        return data.mean(axis=(1, 2))


class Flat(nn.Module):
    """A per-place linear map of planes (B, H, W, 2) to one channel."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(2, 1)

    def __call__(self, x):
        assert x.ndim == 4  # planes, never volumes
        return self.map(x)


def volumes():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4, 5, 6, 2)).astype(np.float32)
    return {"x": mx.array(x), "t": mx.array(x.sum(-1, keepdims=True)), "id": mx.arange(3)}


def network(slicers, model=None, ops=()):
    mx.random.seed(0)
    model = model or Flat()
    inner = [ModelOp(model, "x", "y"), Squares(("y", "t"), "loss"), *ops]
    return Network([Sliced(inner, slicers), UpdateOp(model, "loss", optim.SGD, 0.1)]), model


def planes(**options):
    return AxisSlicer(1, slice=["x", "t"], unslice="y", **options)


@pytest.mark.parametrize("compiled", [False, True])
def test_one_update_for_all_slices_is_that_of_the_whole(compiled):
    net, model = network(planes())
    step, data = TrainStep(net, compile=compiled), volumes()
    before = [np.array(leaf) for leaf in (model.map.weight, model.map.bias)]
    x, t = np.array(data["x"]).reshape(-1, 2), np.array(data["t"]).reshape(-1, 1)
    error = x @ before[0].T + before[1] - t
    out = step(data, mx.random.key(0), ["y", "loss"])
    np.testing.assert_allclose(out["loss"].item(), (error**2).mean(), rtol=1e-5)
    np.testing.assert_allclose(np.array(out["y"]).reshape(-1, 1), error + t, atol=1e-5)
    np.testing.assert_allclose(model.map.weight, before[0] - 0.1 * 2 * (error.T @ x) / len(x), atol=1e-5)
    np.testing.assert_allclose(model.map.bias, before[1] - 0.1 * 2 * error.mean(0), atol=1e-5)


def test_the_batch_stays_as_it_was_and_evaluation_gives_wholes():
    net, _ = network([planes(), MeanUnslicer("m")], ops=[Mean("y", "m")])
    arrays, data = {}, volumes()
    out = ForwardStep(net, "eval")(arrays, data, mx.random.key(0), ["x", "t", "y", "m", "loss", "id"])
    np.testing.assert_array_equal(out["x"], data["x"])
    assert out["y"].shape == (3, 4, 5, 6, 1) and out["id"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(out["m"], out["y"].mean(axis=(1, 2, 3)), atol=1e-6)


def test_windows_overlap_and_slices_may_be_for_one_mode_only():
    windows = SlidingSlicer([-1, 1, 3, 4, -1], [1, 1, 2, 2, 1], slice=["x", "t"], unslice="y", squeeze_window=True)
    net, model = network(windows)
    data = volumes()
    out = ForwardStep(net, "test")({}, data, mx.random.key(0), ["y"])
    np.testing.assert_allclose(out["y"], model.map(data["x"]), atol=1e-5)
    net, _ = network(planes(mode="train"))
    with pytest.raises(AssertionError):  # the model gets volumes
        ForwardStep(net, "eval")({}, data, mx.random.key(0), ["y"])


class Drawn(TensorOp):
    def forward(self, data, state):
        return data + mx.random.uniform(key=state.key)


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm(2, momentum=0.5)

    def __call__(self, x):
        return self.norm(x)


def test_every_slice_draws_its_own_numbers_and_layer_statistics_see_each():
    data = volumes()
    found = Sliced(Drawn("x", "z"), AxisSlicer(1, "x", "z"))(
        data, Context("train", mx.random.key(0), mx.array(0), mx.array(0))
    )
    shifts = np.array(found["z"] - data["x"]).reshape(3, 4, -1)
    assert np.ptp(shifts, axis=(0, 2)).max() < 1e-6 and len(set(shifts[0, :, 0].round(5))) == 4
    model = Norm()
    op = Sliced(ModelOp(model, "x", "y"), AxisSlicer(1, "x", "y"))
    model.train()
    op(data, Context("train", mx.random.key(0), mx.array(0), mx.array(0)))
    expected = np.zeros(2)
    for plane in np.array(data["x"]).swapaxes(0, 1):
        expected = 0.5 * expected + 0.5 * plane.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(model.norm.running_mean, expected, atol=1e-5)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Sliced([Mean("x", "m")], MeanUnslicer("m")), "only put together"),
    (lambda: Sliced([Mean("x", "m")], [AxisSlicer(1, "x"), AxisSlicer(2, "x", None)]), "slice one key"),
    (lambda: Sliced([Mean("x", "m")], [AxisSlicer(1, "x", "m"), MeanUnslicer("m")]), "unslice one key"),
    (lambda: run(Sliced([Mean("x", "m")], [AxisSlicer(1, "x"), AxisSlicer(2, "t")])), "equally many slices"),
    (lambda: run(Sliced([Mean("q", "m")], AxisSlicer(1, "x"))), "Mean misses q"),
    (lambda: run(Sliced([Mean("x", "m"), GradientOp("m", "g", "x")], AxisSlicer(1, "x"))), "run again"),
])  # fmt: skip
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def run(op):
    return op(volumes(), Context("eval", mx.random.key(0), mx.array(0), mx.array(0)))


@pytest.mark.usefixtures("still_memory")
def test_evaluation_holds_one_slice_at_a_time():
    class Wide(nn.Module):
        def __call__(self, x):
            return mx.softmax(x @ mx.ones((4, 256)), axis=-1) @ mx.ones((256, 1))

    data = {"x": mx.random.normal((1, 64, 32, 32, 4), key=mx.random.key(0))}
    peaks = []
    for slicer in (AxisSlicer(1, "x", "y"), SlidingSlicer([-1, -1, -1, -1, -1], slice="x", unslice="y")):
        op = Sliced(ModelOp(Wide(), "x", "y"), slicer)
        mx.eval(data)
        mx.clear_cache()
        mx.reset_peak_memory()
        mx.eval(op(data, Context("eval", mx.random.key(0), mx.array(0), mx.array(0))))
        peaks.append(mx.get_peak_memory())
    assert peaks[0] < peaks[1] / 5  # a few of 64 slices are under way; without an order a third
