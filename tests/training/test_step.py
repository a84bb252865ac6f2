"""The compiled step: equal to steps written by hand, guarded, accumulated, averaged, in lower precision."""

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest

from runtime.errors import UsageError
from runtime.op import ObjectiveOp
from runtime.seed import step_key
from runtime.slots import snapshot
from tests.training.by_hand import (
    KEY,
    Adam,
    Apply,
    Regression,
    assert_same,
    batches,
    by_hand,
    mlp,
    regression_step,
    weights,
)
from training.forward import ForwardStep, judged_arrays
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp


def test_equals_a_step_by_hand_through_lists_of_layers():
    step = regression_step(mlp())
    for i, batch in enumerate(batches(10)):
        step(batch, step_key(0, i))
    assert_same(weights(step.network.models["model"]), by_hand(mlp(), batches(10)), rtol=1e-5, atol=1e-6)


def test_compiled_equals_eager():
    ends = []
    for compile in (True, False):
        step = regression_step(mlp(), compile=compile, ema=[0.9, 0.99], clip=0.5)
        for i, batch in enumerate(batches(5)):
            step(batch, step_key(0, i))
        ends.append({k: np.array(v) for k, v in snapshot(step.state).items()})
    assert_same(*ends, rtol=1e-5, atol=1e-6)


def test_accumulated_micro_batches_equal_the_whole_batch():
    whole = batches(4, rows=12)
    one, three = regression_step(mlp(), clip=0.1), regression_step(mlp(), clip=0.1, accumulate=3)
    for i, batch in enumerate(whole):
        one(batch, step_key(0, i))
        for m in range(3):
            three({k: v[4 * m : 4 * m + 4] for k, v in batch.items()}, step_key(0, i, m), last=m == 2)
    assert int(three.state["step"]) == 4
    assert_same(weights(one.network.models["model"]), weights(three.network.models["model"]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_nan_leaves_everything_as_it_was_and_training_goes_on(accumulate):
    def forward(data, ctx, model):
        return {"memory": data["memory"] + data["x"].sum(axis=1), "loss": model(data["x"]).square().mean()}

    model = mlp()
    network = Network(
        [Apply(("memory", "loss"), forward, carry=("memory",), model=model), UpdateOp(model, "loss", Adam, ema=[0.9])]
    )
    step = TrainStep(network, accumulate=accumulate)
    good, bad = batches(2)
    bad["x"][0, 0] = float("nan")
    step.start(good)
    for m in range(accumulate):
        step(good, KEY, last=m == accumulate - 1)
    before = {k: np.array(v) for k, v in snapshot(step.state).items()}
    for m in range(accumulate):
        out = step(bad, KEY, last=m == accumulate - 1)
    after = {k: np.array(v) for k, v in snapshot(step.state).items()}
    counters = {"step", "skipped", "streak"}
    assert_same(
        {k: v for k, v in before.items() if k not in counters}, {k: v for k, v in after.items() if k not in counters}
    )
    assert (int(out["skipped"]), int(out["streak"]), int(after["step"])) == (1, 1, 2)
    for m in range(accumulate):
        out = step(good, KEY, last=m == accumulate - 1)
    assert (int(out["skipped"]), int(out["streak"])) == (1, 0)
    moved = {k: np.array(v) for k, v in snapshot(step.state).items() if k.startswith("models.")}
    assert all(np.isfinite(v).all() and not np.array_equal(v, after[k]) for k, v in moved.items())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_keeps_float32_masters_and_follows_them(precision):
    seen = []

    def forward(data, ctx, model):
        out = model(data["x"])
        seen.append(model.layers[0].weight.dtype)
        return {"loss": (out - data["y"]).square().mean()}

    model = mlp()
    step = TrainStep(
        Network([Apply("loss", forward, model=model), UpdateOp(model, "loss", optim.SGD, 0.1)]), precision=precision
    )
    data = batches(20)
    step.start(data[0])
    for batch in data:
        out = step(batch, KEY)
    assert set(seen) == {mx.bfloat16 if precision == "bf16" else mx.float16}
    assert out["loss"].dtype == mx.float32 and all(v.dtype == np.float32 for v in weights(model).values())
    want = by_hand(mlp(), data, optimizer=optim.SGD(learning_rate=0.1))
    assert_same(weights(model), want, atol=0.03)
    assert any(not np.array_equal(weights(model)[p], want[p]) for p in want)


def test_fp16_scale_halves_on_overflow_and_the_update_is_skipped():
    model = mlp()
    step = TrainStep(Network([ObjectiveOp(model, Regression()), UpdateOp(model, "loss", Adam)]), precision="fp16")
    batch = batches(1)[0]
    step.start(batch)
    huge = {"x": batch["x"] * 3e4, "y": batch["y"]}
    out = step(huge, KEY)
    assert float(step.state["scaler"]["scale"]) == 2.0**14 and int(out["skipped"]) == 1


def test_ema_follows_its_recursion_with_warm_up():
    step = regression_step(mlp(), ema=[0.5, 0.999])
    average = {decay: weights(mlp()) for decay in (0.5, 0.999)}
    for n, batch in enumerate(batches(4), start=1):
        step(batch, KEY)
        now = weights(step.network.models["model"])
        for decay, kept in average.items():
            d = min(decay, (1 + n) / (10 + n))
            average[decay] = {p: d * kept[p] + (1 - d) * now[p] for p in kept}
    for decay, kept in average.items():
        got = {p: np.array(a) for p, a in step.network.updates[0].averages.leaves(decay).items()}
        assert_same(got, kept, rtol=1e-5, atol=1e-6)


def test_rate_is_schedule_times_a_scale_that_traces_may_lower():
    step = regression_step(mlp(), learning_rate=0.5, schedule=lambda step: 1 / (1 + step.astype(mx.float32)))
    batch = batches(1)[0]
    rates = [float(step(batch, KEY)["learning_rate"]) for _ in range(3)]
    step.network.updates[0].state["scale"] = mx.array(0.1)
    rates.append(float(step(batch, KEY)["learning_rate"]))
    np.testing.assert_allclose(rates, [0.5, 0.25, 0.5 / 3, 0.0125], rtol=1e-6)


def test_clip_bounds_the_global_norm():
    model = mlp()
    step = TrainStep(Network([ObjectiveOp(model, Regression()), UpdateOp(model, "loss", optim.SGD, 1.0, clip=1e-3)]))
    batch = batches(1)[0]
    step.start(batch)
    start = weights(mlp())
    norm = float(step(batch, KEY)["grad_norm"])
    moved = np.sqrt(sum(((weights(model)[p] - start[p]) ** 2).sum() for p in start))
    assert norm > 0.1
    np.testing.assert_allclose(moved, 1e-3, rtol=1e-2)


def test_a_loss_that_nothing_computes_is_named_and_another_key_left_out():
    assert "accuracy" not in regression_step(mlp())(batches(1)[0], KEY, fetch=["accuracy"])
    model = mlp()
    with pytest.raises(UsageError, match="'loss' as one number"):
        broken = TrainStep(
            Network([Apply("other", lambda data, ctx: {"other": mx.array(1.0)}), UpdateOp(model, "loss", Adam)])
        )
        broken(batches(1)[0], KEY)


@pytest.mark.parametrize("compile", [True, False])
def test_a_step_that_fails_leaves_everything_as_it_was(compile):
    def forward(data, ctx, model):
        if ctx.mode == "eval":
            raise ValueError("no evaluation")
        if "broken" in data:
            raise ValueError("no training")
        return {"loss": model(data["x"]).square().mean()}

    model = mlp()
    network = Network([Apply("loss", forward, model=model), UpdateOp(model, "loss", Adam)])
    step, forward_step = TrainStep(network, compile=compile), ForwardStep(network, "eval", compile)
    before = {k: np.array(v) for k, v in snapshot(step.state).items()}
    for _ in range(2):
        with pytest.raises(UsageError, match="Sequential's Apply can't compute .* y .8, 2. in mode train: no training"):
            step({**batches(1)[0], "broken": mx.zeros(8)}, KEY)
        with pytest.raises(UsageError, match="Sequential's Apply can't compute .* in mode eval: no evaluation"):
            forward_step(judged_arrays(network), batches(1)[0], KEY, ["loss"])
        assert_same({k: np.array(v) for k, v in snapshot(step.state).items()}, before)
    step(batches(1)[0], KEY)
    assert not np.array_equal(weights(model)["layers.0.weight"], before["models.model.layers.0.weight"])


def test_a_phase_changes_the_graph_and_is_compiled_once_for_each_value():
    traced = []

    class Phased(Regression):
        def phase(self, step):
            return "late" if step >= 2 else "early"

        def __call__(self, model, batch, ctx):
            traced.append(ctx.phase)
            loss, extra = super().__call__(model, batch, ctx)
            return (2 * loss if ctx.phase == "late" else loss), extra

    model = mlp()
    network = Network([ObjectiveOp(model, Phased()), UpdateOp(model, "loss", optim.SGD, 0.0)])
    step, batch = TrainStep(network), batches(1)[0]
    step.start(batch)
    losses = [float(step(batch, KEY, phases=network.phases(i))["loss"]) for i in range(4)]
    assert traced == ["early", "late"]
    assert losses == pytest.approx([losses[0], losses[0], 2 * losses[0], 2 * losses[0]])
