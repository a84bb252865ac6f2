"""Flow matching with exact affine-Gaussian models: the loss and the samples have closed forms; no training."""

import math
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from losses.couplings import Coupling
from losses.flow_matching import FlowMatching
from losses.meanflow import MeanFlow
from losses.paths import VP, CondOT, Cosine, Polynomial, Stratified
from models.mlp import MLP
from runtime.errors import UsageError
from runtime.op import Context
from solvers.rk4 import RK4

MEAN, STD = 3.0, 0.5
CTX = Context("train", mx.random.key(0), mx.array(0), mx.array(0))


def exact(path, prediction):
    """The best possible model for data N(MEAN, STD^2): a conditional mean of two jointly normal variables."""

    def model(x, times=None, key=None):
        assert times.shape == (x.shape[0], 2) and mx.all(times[:, 1] == 1).item()
        alpha, sigma, d_alpha, d_sigma = path.coefficients(times[:, :1])
        gain = 1 / (alpha**2 * STD**2 + sigma**2)
        x1 = MEAN + alpha * STD**2 * gain * (x - alpha * MEAN)
        x0 = sigma * gain * (x - alpha * MEAN)
        return {"x": x1, "eps": x0, "velocity": d_alpha * x1 + d_sigma * x0}[prediction]

    return model


def data(count, seed=0):
    return mx.array(np.random.default_rng(seed).normal(MEAN, STD, (count, 2)).astype(np.float32))


@pytest.mark.parametrize("prediction", ["velocity", "x", "eps"])
@pytest.mark.parametrize("path", [CondOT(), Cosine(), Polynomial(2.0)], ids=lambda p: type(p).__name__)
def test_loss_of_the_exact_model_is_the_conditional_variance(path, prediction):
    objective = FlowMatching(path, Stratified(), prediction)
    loss, _ = objective(exact(path, prediction), {"x": data(200_000)}, CTX)
    t = mx.array(((np.arange(20_000) + 0.5) / 20_000).astype(np.float32))
    alpha, sigma, d_alpha, d_sigma = (np.array(c, np.float64) for c in path.coefficients(t))
    # x1 and x0 given x_t are one normal variable: s sigma along x1, -s alpha along x0, over the marginal std
    weight = {"velocity": d_alpha * sigma - d_sigma * alpha, "x": sigma, "eps": alpha}[prediction]
    wanted = (STD**2 * weight**2 / (alpha**2 * STD**2 + sigma**2)).mean()
    assert abs(loss.item() / wanted - 1) < 0.01


@pytest.mark.parametrize("prediction", ["velocity", "x", "eps"])
@pytest.mark.parametrize("path", [CondOT(), Cosine(), VP()], ids=lambda p: type(p).__name__)
def test_sampling_with_the_exact_model_gives_the_data(path, prediction):
    noise = mx.array(np.random.default_rng(1).normal(size=(500, 2)).astype(np.float32))
    solver = RK4(100)
    # x and eps are singular at one end each: a short stretch there is left out
    solver.times = lambda start=0.0, end=1.0: np.linspace(0.0 if prediction != "eps" else 0.002, 0.998, 101)
    out = FlowMatching(path, prediction=prediction).sample(exact(path, prediction), noise, solver)
    # the flow map of a normal distribution is affine: it carries z to MEAN + STD z
    assert mx.abs(out - (MEAN + STD * noise)).max().item() < 0.05


def test_straight_path_samples_to_the_very_end():
    noise = mx.array(np.random.default_rng(1).normal(size=(500, 2)).astype(np.float32))
    out = FlowMatching().sample(exact(CondOT(), "velocity"), noise, RK4(50))
    assert mx.abs(out - (MEAN + STD * noise)).max().item() < 1e-4


def still(x, times=None, key=None):
    return mx.zeros_like(x)


def test_source_points_of_the_batch_are_used():
    x0, x1 = mx.ones((4, 2)), 3 * mx.ones((4, 2))
    loss, extra = FlowMatching()(still, {"x": x1, "x0": x0}, CTX)
    assert loss.item() == 4.0 and extra["velocity_mse"].tolist() == [4.0] * 4


def test_mask_leaves_padding_out():
    x1 = mx.array([[1.0, 1.0], [3.0, 3.0], [100.0, 100.0]])
    loss, _ = FlowMatching()(still, {"x": x1, "x0": mx.zeros((3, 2)), "mask": mx.array([1.0, 1.0, 0.0])}, CTX)
    assert abs(loss.item() - 5.0) < 1e-6


def test_velocity_mse_compares_predictions():
    batch = {"x": data(50_000)}
    found = {}
    for prediction in ("velocity", "x"):
        objective = FlowMatching(Cosine(), prediction=prediction)
        _, extra = objective(exact(Cosine(), prediction), batch, CTX)
        found[prediction] = extra["velocity_mse"].mean().item()
    assert abs(found["x"] / found["velocity"] - 1) < 1e-3


def test_loss_is_float32_for_a_bfloat16_model_and_keys_decide():
    def model(x, times=None, key=None):
        return x.astype(mx.bfloat16)

    objective, batch = FlowMatching(), {"x": data(64)}
    loss, _ = objective(model, batch, CTX)
    assert loss.dtype == mx.float32
    assert loss.item() == objective(model, batch, CTX)[0].item()
    assert loss.item() != objective(model, batch, replace(CTX, key=mx.random.key(1)))[0].item()


def labelled(x, times=None, key=None, label=None):
    """The label as velocity, -1 for no class."""
    return mx.broadcast_to(label.astype(mx.float32)[:, None], x.shape)


def test_labels_reach_the_model_and_guidance_extrapolates():
    labels = mx.array([2, 5], dtype=mx.int32)
    plain = FlowMatching(conditions=["label"])
    out = plain.sample(labelled, mx.zeros((2, 3)), RK4(2), label=labels)
    assert np.allclose(np.array(out)[:, 0], [2, 5], atol=1e-6)
    guided = FlowMatching(conditions=["label"], guidance=2.0)
    out = guided.sample(labelled, mx.zeros((2, 3)), RK4(2), label=labels)
    assert np.allclose(np.array(out)[:, 0], [-1 + 2 * 3, -1 + 2 * 6], atol=1e-5)


@pytest.mark.parametrize("mode, share", [("train", 0.3), ("eval", 0.0)])
def test_labels_are_dropped_in_training_only(mode, share):
    seen = []

    def model(x, times=None, key=None, label=None):
        seen.append(label)
        assert (key is None) == (mode == "eval")
        return x

    count = 4000
    batch = {"x": mx.zeros((count, 1)), "label": mx.ones(count, dtype=mx.int32)}
    FlowMatching(conditions=["label"], label_dropout=0.3)(model, batch, replace(CTX, mode=mode))
    dropped = (seen[0] == -1).astype(mx.float32).mean().item()
    assert abs(dropped - share) < 4 * math.sqrt(0.21 / count)


def test_gradient_flows_and_guidance_without_label_is_refused():
    slope = mx.grad(lambda w: FlowMatching()(lambda x, times, key: w * x, {"x": data(64)}, CTX)[0])(mx.array(0.1))
    assert abs(slope.item()) > 1e-3
    with pytest.raises(UsageError, match="'label'"):
        FlowMatching(guidance=2.0)


def test_host_ops():
    assert FlowMatching().host_ops() == []
    (op,) = FlowMatching(coupling="ot", coupling_span=4).host_ops()
    assert isinstance(op, Coupling) and op.kind == "ot" and op.span == 4


def test_a_modules_field_is_compiled_for_sampling_and_gives_the_same():
    traced, model = [], MLP((2,), hidden=16, depth=2)

    class Seen(nn.Module):
        def __call__(self, x, times):
            traced.append(x.shape)
            return model(x, times=times)

    noise, solver = mx.random.normal((9, 2)), RK4(steps=3)
    found = FlowMatching().sample(Seen(), noise, solver)
    assert traced == [(9, 2)]  # once, however often the solver asks
    wanted = FlowMatching().sample(lambda x, times: model(x, times=times), noise, solver)
    assert np.abs(np.array(found - wanted)).max() < 1e-5 and np.abs(np.array(found - noise)).max() > 1e-3


@pytest.mark.parametrize("loss", [FlowMatching(), MeanFlow()], ids=lambda loss: type(loss).__name__)
def test_a_model_that_gives_another_shape_is_refused_where_broadcasting_would_train_it(loss):
    with pytest.raises(UsageError, match=r"gives an array of shape \(\d, 1\) for states of shape \(\d, 2\)"):
        loss(lambda x, times, key=None: x[:, :1], {"x": data(8)}, CTX)
