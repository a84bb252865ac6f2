"""build, save_model, load_model, and UpdateOp with what build attached: merged and given gradients."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten

from dataloaders.samples import read
from runtime.errors import UsageError
from runtime.op import ObjectiveOp, Op
from runtime.slots import snapshot
from tests.training.by_hand import KEY, Adam, Apply, Regression, assert_same, batches, by_hand, mlp, weights
from traces.trace import Trace
from training.build import build, load_model, save_model
from training.estimator import Estimator
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp


def trained(model, data, **options):
    step = TrainStep(Network([ObjectiveOp(model, Regression()), UpdateOp(model, **options)]))
    for batch in data:
        step(batch, KEY)
    return weights(model)


@pytest.mark.parametrize("maker", [
    "adam", lambda: optim.Adam(1e-3, bias_correction=True), lambda x: optim.Adam(1e-3, bias_correction=True),
    lambda learning_rate: optim.Adam(learning_rate, bias_correction=True),
])  # fmt: skip
def test_an_update_takes_the_optimizer_that_build_attached(maker):
    data = batches(3)
    want = by_hand(mlp(), data, optimizer=optim.Adam(1e-3, bias_correction=True))
    assert_same(trained(build(mlp, maker), data), want, rtol=1e-5, atol=1e-6)


def test_a_schedule_inside_the_optimizer_is_followed():
    data, schedule = batches(4), lambda step: 0.1 / (1 + step.astype(mx.float32))
    found = trained(build(mlp, lambda: optim.SGD(schedule)), data)
    assert_same(found, by_hand(mlp(), data, optimizer=optim.SGD(schedule)), rtol=1e-5, atol=1e-6)


def test_several_models_get_each_its_own_and_the_network_numbers_them():
    one, two = build(lambda: [mlp(1), mlp(2)], ["adam", lambda: optim.SGD(0.5)])
    network = Network([UpdateOp(one, "a"), UpdateOp(two, "b")])
    assert list(network.models) == ["model", "model1"]
    kinds = [type(update.groups[0].optimizer) for update in network.updates]
    assert kinds == [optim.Adam, optim.SGD] and network.updates[1].groups[0].base == 0.5
    named = build(mlp, "sgd", model_name="critic")
    assert list(Network([UpdateOp(named)]).models) == ["critic"]


@pytest.mark.parametrize(("call", "words"), [
    (lambda: build(mlp, "adem"), "no optimizer 'adem'; nearest: adam"),
    (lambda: build(lambda: [mlp(), mlp()], "adam"), "made 2 models; optimizer_fn must be a list of 2"),
    (lambda: build(lambda: [mlp(), mlp()], ["adam"]), "made 2 models; optimizer_fn must have as many entries, got 1"),
    (lambda: build(lambda: 3), "must give an mlx.nn.Module or a list of them, got int"),
    (lambda: UpdateOp(build(mlp)), "UpdateOp has no optimizer for this Sequential"),
    (lambda: UpdateOp(build(mlp, "adam"), merge_grad=0), "merge_grad must be at least 1, got 0"),
    (lambda: build(mlp, lambda: 3), "must give an mlx optimizer, got int"),
    (lambda: build(mlp(), "adam"), "model_fn must be a function that makes a module, .* got Sequential"),
    (lambda: Network(["x"]), "a network is made of ops, got 'x'"),
    (lambda: Network([UpdateOp]), "a network is made of ops, got <class"),
    (lambda: Op(mode="trian"), "Op: mode must be of train, eval, test, infer or !MODE, got 'trian'"),
    (lambda: Trace(mode=["train", "!evl"]), "Trace: mode must be of .* got '!evl'"),
    (lambda: Estimator(None, Network([]), traces=[Trace]), "traces must be traces, made ones, got <class"),
    (lambda: Estimator(None, Network([]), traces=3), "traces must be traces, made ones, got 3"),
    (lambda: read({"x": np.ones((3, 2)), 0: np.ones(2)}, 0, np.random.default_rng(0)), "of whole columns NumpyDataset"),
])  # fmt: skip
def test_mistakes_are_named(call, words):
    with pytest.raises(UsageError, match=words):
        call()


def test_weights_and_statistics_go_through_a_file(tmp_path):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm(3))
    model.train(True)
    model(mx.random.normal((5, 2)))
    path = save_model(model, tmp_path / "deep" / "model")
    other = build(lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm(3)), weights_path=path)
    assert_same(weights(other), weights(model))
    with pytest.raises(UsageError, match="does not fit this network"):
        load_model(mlp(), path)
    with pytest.raises(UsageError, match="there is no file of weights"):
        load_model(model, tmp_path / "absent.safetensors")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UsageError, match="is not a whole safetensors file"):
        load_model(model, path)


def test_merged_gradients_equal_one_step_on_all_their_rows():
    whole = batches(3, rows=12)
    parts = [{k: v[4 * m : 4 * m + 4] for k, v in batch.items()} for batch in whole for m in range(3)]
    options = {"optimizer": Adam, "learning_rate": 1e-2, "clip": 0.1, "ema": [0.9]}
    one, three = mlp(), mlp()
    want = trained(one, whole, **options)
    assert_same(trained(three, parts, merge_grad=3, **options), want, rtol=1e-5, atol=1e-6)


def test_weights_rest_between_merged_updates_and_a_bad_step_is_left_out():
    model = mlp()
    network = Network([ObjectiveOp(model, Regression()), UpdateOp(model, optimizer=optim.SGD, learning_rate=0.1,
                                                                  merge_grad=3, ema=[0.5])])  # fmt: skip
    step, (first, second, third) = TrainStep(network), batches(3)
    start = weights(model)
    step(first, KEY)
    assert_same(weights(model), start)
    held = {k: np.array(v) for k, v in snapshot(step.state).items() if "merged" in k}
    out = step({**second, "x": second["x"] * float("nan")}, KEY)
    assert int(out["skipped"]) == 1
    assert_same({k: np.array(v) for k, v in snapshot(step.state).items() if "merged" in k}, held)
    step(third, KEY)
    hand = mlp()
    grads = [dict(tree_flatten(nn.value_and_grad(hand, lambda b: (hand(b["x"]) - b["y"]).square().mean())(b)[1]))
             for b in (first, third)]  # fmt: skip
    want = {p: start[p] - 0.1 * np.array(grads[0][p] + grads[1][p]) / 2 for p in start}
    assert_same(weights(model), want, rtol=1e-5, atol=1e-6)
    assert int(network.updates[0].averages.state["updates"]) == 1


def test_gradients_that_an_op_gives_are_applied():
    data, model = batches(3), mlp()

    def forward(data, ctx, model):
        _, grads = nn.value_and_grad(model, lambda: (model(data["x"]) - data["y"]).square().mean())()
        return {"grads": grads}

    step = TrainStep(Network([Apply("grads", forward, model=model),
                              UpdateOp(model, optimizer=Adam, learning_rate=1e-2, gradients="grads")]))  # fmt: skip
    for batch in data:
        step(batch, KEY)
    assert_same(weights(model), by_hand(mlp(), data), rtol=1e-5, atol=1e-6)


def test_a_loss_of_one_number_a_row_trains_on_its_mean_over_real_rows():
    data = batches(1)[0]
    mask = mx.array([1.0] * 5 + [0.0] * 3)

    def forward(data, ctx, model):
        return {"loss": (model(data["x"]) - data["y"]).square().mean(axis=1)}

    model = mlp()
    step = TrainStep(
        Network([Apply("loss", forward, model=model), UpdateOp(model, optimizer=Adam, learning_rate=1e-2)])
    )
    step({**data, "mask": mask}, KEY)
    assert_same(weights(model), by_hand(mlp(), [{k: v[:5] for k, v in data.items()}]), rtol=1e-5, atol=1e-6)
