"""Faults of an earlier port of FastEstimator, each with a test that fails on it.

Elsewhere: the table's header that stays as it began (tests/traces/test_tables.py), a forward pass for every loss
(test_products.py), scaling by a power of two that never changes (test_precision.py).
"""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten

from ops.loss_op import LossOp
from ops.model_op import ModelOp
from runtime.device import describe
from runtime.errors import UsageError
from tests.traces.small import estimator
from tests.training.by_hand import KEY, Apply, assert_same, batches, mlp, weights
from traces.adapt.early_stopping import EarlyStopping
from traces.adapt.reduce_lr_on_plateau import ReduceLROnPlateau
from traces.io.model_saver import BestModelSaver
from traces.trace import Trace
from training import checkpoint
from training.build import load_model
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp


class Squared(LossOp):
    def per_sample(self, data, state):
        return (data[0] - data[1]).square().mean(axis=-1)


def test_a_model_that_mlx_sees_only_in_part_is_refused_before_it_trains():
    model = nn.Sequential(nn.Linear(3, 1))
    model.head = nn.Linear(1, 1)  # which it sees
    TrainStep(regression(model))
    model.layers = (*model.layers,)
    with pytest.raises(UsageError, match=r"^model.layers is a tuple or set .* needed: a list"):
        TrainStep(regression(model))


def regression(model, **options):
    """A network whose model is an nn.Sequential: its layers are in a list."""
    return Network([ModelOp(model, "x", "out"), Squared(("out", "y"), "loss"),
                    UpdateOp(model, "loss", optim.SGD, 0.1, **options)])  # fmt: skip


def moves(model, start):
    return {path: new - start[path] for path, new in weights(model).items()}


def test_every_layer_under_a_list_is_clipped_and_moves():
    model = mlp()
    start = weights(model)
    TrainStep(regression(model, clip=1e-3))(batches(1)[0], KEY)
    moved = moves(model, start)
    assert all(np.any(change) for change in moved.values())
    np.testing.assert_allclose(np.sqrt(sum((m**2).sum() for m in moved.values())), 1e-4, rtol=0.02)


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"merge_grad": 2}])
def test_every_layer_under_a_list_is_accumulated(options):
    model, (first, second) = mlp(), batches(2)
    start = weights(model)
    merged = {key: value for key, value in options.items() if key == "merge_grad"}
    step = TrainStep(regression(model, **merged), accumulate=options.get("accumulate", 1))
    step(first, KEY, last="merge_grad" in options)
    assert not any(np.any(change) for change in moves(model, start).values())
    step(second, KEY)
    hand = mlp()
    loss = nn.value_and_grad(hand, lambda batch: (hand(batch["x"]) - batch["y"]).square().mean())
    one, two = (dict(tree_flatten(loss(batch)[1])) for batch in (first, second))
    mean = {path: np.array(one[path] + two[path]) / 2 for path in one}
    assert_same(weights(model), {path: start[path] - 0.1 * g for path, g in mean.items()}, atol=1e-6)


@pytest.mark.parametrize("place", [0, 2])
def test_a_gradient_under_a_list_that_is_not_finite_is_found(place):
    def forward(data, ctx, model):
        weight = model.layers[place].weight
        still = (weight - mx.stop_gradient(weight)).square().sum()  # 0, and its root has no slope there
        return {"loss": model(data["x"]).square().mean() + mx.sqrt(still)}

    model = mlp()
    start = weights(model)
    step = TrainStep(Network([Apply("loss", forward, model=model), UpdateOp(model, "loss", optim.SGD, 0.1)]))
    out = step(batches(1)[0], KEY)
    assert np.isfinite(float(out["loss"])) and int(out["skipped"]) == 1
    assert_same(weights(model), start)


@pytest.mark.parametrize("scale", [1.0, 2.0**15])
def test_the_fp16_scale_cancels(scale):
    ends = []
    for precision in ("fp32", "fp16"):
        model = mlp()
        start = weights(model)
        step = TrainStep(regression(model), precision=precision)
        if precision == "fp16":
            step.state["scaler"]["scale"] = mx.array(scale)
        step(batches(1)[0], KEY)
        ends.append(moves(model, start))
    assert_same(ends[1], ends[0], rtol=0.05, atol=2e-4)


def test_each_model_follows_its_own_loss_and_not_the_sum():
    one, two = mlp(1), mlp(2)
    start = [weights(model) for model in (one, two)]

    def forward(data, ctx, one, two):
        a, b = one(data["x"]), two(data["x"])
        return {"a": (a * b).mean(), "b": (a + 2 * b).square().mean()}

    network = Network([Apply(("a", "b"), forward, one=one, two=two), UpdateOp(one, "a", optim.SGD, 1.0, name="one"),
                       UpdateOp(two, "b", optim.SGD, 1.0, name="two")])  # fmt: skip
    batch = batches(1)[0]
    TrainStep(network)(batch, KEY)
    left, right = mlp(1), mlp(2)
    of_a = nn.value_and_grad(left, lambda: (left(batch["x"]) * right(batch["x"])).mean())()[1]
    of_b = nn.value_and_grad(right, lambda: (left(batch["x"]) + 2 * right(batch["x"])).square().mean())()[1]
    for model, begun, grads in ((one, start[0], of_a), (two, start[1], of_b)):
        assert_same(moves(model, begun), {path: -np.array(g) for path, g in tree_flatten(grads)}, atol=1e-6)


class Scripted(LossOp):
    """A loss that is in evaluation what `Script` says of the epoch."""

    def __init__(self):
        super().__init__("x", "scripted")
        self.state["value"] = mx.array(0.0)

    def per_sample(self, data, state):
        return mx.broadcast_to(self.state["value"], (len(data),))


class Script(Trace):
    """Sets the loss of the coming evaluation and keeps the weights that it judges."""

    def __init__(self, op, *losses):
        super().__init__(mode="train")
        self.op, self.losses, self.kept = op, losses, []

    def on_epoch_end(self, data):
        self.op.state["value"] = mx.array(self.losses[self.estimator.epoch - 1])
        self.kept.append(weights(self.estimator.network.models["model"]))


def test_the_loss_of_an_epoch_is_there_when_its_traces_ask(tmp_path):
    op = Scripted()
    script = Script(op, 3.0, 2.0, 4.0, 5.0, 6.0, 7.0)

    def traces(model):
        return [script, EarlyStopping("scripted", patience=2), ReduceLROnPlateau(model, "scripted", patience=1),
                BestModelSaver(model, tmp_path, "scripted")]  # fmt: skip

    run = estimator(traces, epochs=6, ops=[op])
    summary = run.fit()
    assert "scripted has not improved for 2 evaluations" in summary.reason
    rows = [row for row in summary.history if "eval/scripted" in row]
    assert [row["eval/scripted"] for row in rows] == [3, 2, 4, 5]
    assert [row.get("eval/learning_rate") for row in rows] == [None, None, pytest.approx(0.01), pytest.approx(0.001)]
    assert [row["eval/since_best_scripted"] for row in rows] == [0, 0, 1, 2]
    model = run.network.models["model"]
    assert_same(weights(model), script.kept[3])
    load_model(model, tmp_path / "model_best_scripted.safetensors")
    assert_same(weights(model), script.kept[1])


class Heard(Trace):
    def __init__(self, mode=None):
        super().__init__("id", mode=mode)
        self.heard = []

    def on_batch_end(self, data):
        self.heard.append((data.mode, np.array(data["id"]).tolist()))


def test_a_trace_for_not_train_hears_nothing_of_the_training():
    silent, other = Heard("!train"), Heard(["!eval", "!test"])
    run = estimator([silent, other], epochs=1)
    run.fit()
    run.test()
    assert [mode for mode, _ in silent.heard] == ["eval", "eval", "test"]
    assert [mode for mode, _ in other.heard] == ["train"] * 4


def test_a_test_sees_the_test_data():
    told, run = Heard(), estimator([], epochs=1)
    run.traces = [told]
    summary = run.test()
    assert told.heard == [("test", list(range(6)))]
    source, model = run.pipeline.sources["test"], run.network.models["model"]
    wanted = nn.losses.cross_entropy(model(mx.array(source.x)), mx.array(source.label)).mean()
    assert summary.latest["test/ce"] == pytest.approx(float(wanted), rel=1e-5)


def test_the_optimizer_is_saved_and_restored_bit_for_bit(tmp_path):
    def adam_run(epochs):
        run = estimator([], epochs=epochs)
        model = run.network.models["model"]
        ops = [*run.network.ops[:-1], UpdateOp(model, "ce", lambda: optim.Adam(1e-2))]
        return type(run)(run.pipeline, Network(ops), epochs)

    whole, first, rest = adam_run(3), adam_run(1), adam_run(3)
    whole.fit()
    first.fit()
    checkpoint.save(tmp_path / "first.safetensors", first.state_arrays(), first.state_dict())
    arrays, meta = checkpoint.load(tmp_path / "first.safetensors")
    rest.load(arrays, meta, "first")
    moments = {path: array for path, array in rest.state_arrays().items() if path.endswith((".m", ".v"))}
    assert len(moments) == 4 and all(mx.any(array != 0).item() for array in moments.values())
    assert all(mx.array_equal(array, first.state_arrays()[path]).item() for path, array in moments.items())
    rest.fit()
    assert all(mx.array_equal(array, rest.state_arrays()[path]).item() for path, array in whole.state_arrays().items())


def test_the_forward_runs_once_however_many_updates_follow():
    models, calls = {"one": mlp(1), "two": mlp(2)}, []

    def forward(data, ctx, one, two):
        calls.append(1)
        a, b = one(data["x"]), two(data["x"])
        return {"a": (a * b).mean(), "b": (a + b).square().mean()}

    updates = [UpdateOp(models[name], loss, optim.SGD, 0.1, name=name) for name, loss in zip(models, "ab", strict=True)]
    step = TrainStep(Network([Apply(("a", "b"), forward, **models), *updates]), compile=False)
    for batch in batches(3):
        step(batch, KEY)
    assert len(calls) == 3


@pytest.mark.parametrize("compile", [True, False])
def test_python_runs_a_compiled_step_once_and_never_again(compile):
    calls = {"train": 0, "eval": 0, "test": 0}

    class Counted(LossOp):
        def per_sample(self, data, state):
            calls[state.mode] += 1
            return nn.losses.cross_entropy(*data)

    run = estimator([], epochs=3, ops=[Counted(("y", "label"), "counted")], compile=compile)
    run.fit(warmup=compile)  # it builds the graphs that the steps use; without compile it would be one more run
    run.test()
    assert calls == ({"train": 1, "eval": 1, "test": 1} if compile else {"train": 12, "eval": 6, "test": 2})


def test_asking_about_devices_changes_no_default(monkeypatch):
    asked = []
    for name in ("set_default_device", "set_default_stream"):
        monkeypatch.setattr(mx, name, lambda *given, name=name: asked.append((name, given)))
    assert describe()["device"] in ("cpu", "gpu")
    estimator([], epochs=1).fit()
    assert asked == []


def test_each_of_several_traces_of_a_class_gets_its_own_state_back():
    class Counting(Trace):
        def __init__(self, value=0):
            super().__init__()
            self.value = value

        def state_dict(self):
            return {"value": self.value}

        def load_state_dict(self, state):
            self.value = state["value"]

    first, again = estimator([]), estimator([])
    first.traces = [Counting(3), Counting(5), Counting(7)]
    again.traces = [Counting(), Counting(), Counting()]
    again.load(first.state_arrays(), first.state_dict(), "test")
    assert [trace.value for trace in again.traces] == [3, 5, 7]
