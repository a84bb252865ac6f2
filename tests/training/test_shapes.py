"""Every shape of task that the loop must carry: carries, two optimizers, two models, JVPs, teachers, statistics."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten

from runtime.errors import UsageError
from runtime.op import Objective, ObjectiveOp
from runtime.seed import step_key
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
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp


def test_two_optimizers_by_group_on_one_backward_pass():
    groups = [{"match": r"layers\.0\.", "optimizer": optim.SGD, "learning_rate": 0.5}]
    step = regression_step(mlp(), groups=groups)
    start, batch = weights(mlp()), batches(1)[0]
    step(batch, KEY)
    model = mlp()
    _, grads = nn.value_and_grad(model, lambda b: (model(b["x"]) - b["y"]).square().mean())(batch)
    flat = dict(tree_flatten(grads))
    end = weights(step.network.models["model"])
    for path in ("layers.0.weight", "layers.0.bias"):
        np.testing.assert_allclose(end[path], start[path] - 0.5 * np.array(flat[path]), rtol=1e-5, atol=1e-6)
    adam = by_hand(mlp(), [batch])
    for path in ("layers.1.weight", "layers.2.bias"):
        np.testing.assert_allclose(end[path], adam[path], rtol=1e-5, atol=1e-6)


def test_a_group_that_matches_nothing_is_an_error():
    with pytest.raises(UsageError, match="matches none"):
        regression_step(mlp(), groups=[{"match": "embedding", "optimizer": optim.SGD}])


def gan_losses(generator, critic, data):
    fake = generator(data["y"])
    real_score, fake_score = critic(data["x"]), critic(fake)
    return (nn.softplus(-real_score) + nn.softplus(fake_score)).mean(), nn.softplus(-fake_score).mean()


def test_two_models_two_updates_each_on_its_own_loss():
    generator, critic = mlp(1), mlp(2, (2, 8, 1))

    def forward(data, ctx, generator, critic):
        critic_loss, generator_loss = gan_losses(generator, critic, data)
        return {"critic_loss": critic_loss, "generator_loss": generator_loss}

    network = Network([
        Apply(("critic_loss", "generator_loss"), forward, generator=generator, critic=critic),
        UpdateOp(critic, "critic_loss", Adam, 1e-2, name="critic"),
        UpdateOp(generator, "generator_loss", Adam, 1e-3, name="generator"),
    ])  # fmt: skip
    step = TrainStep(network)
    step.start(batches(1)[0])
    hand = {"generator": mlp(1), "critic": mlp(2, (2, 8, 1))}
    optimizers = {"generator": Adam(learning_rate=1e-3), "critic": Adam(learning_rate=1e-2)}
    for i, batch in enumerate(batches(10)):
        step(batch, step_key(0, i))
        grads = {}
        for position, name in enumerate(("critic", "generator")):
            loss = lambda b, at=position: gan_losses(hand["generator"], hand["critic"], b)[at]  # noqa: E731
            grads[name] = nn.value_and_grad(hand[name], loss)(batch)[1]
        for name, grad in grads.items():
            optimizers[name].update(hand[name], grad)
    for name in hand:
        assert_same(weights(network.models[name]), weights(hand[name]), rtol=1e-4, atol=1e-5)


def test_carry_goes_from_step_to_step_and_is_not_a_constant_of_the_trace():
    model = mlp()

    def forward(data, ctx, model):
        return {"memory": data["memory"] + data["x"].sum(axis=1), "loss": model(data["x"]).square().mean()}

    step = TrainStep(
        Network([Apply(("memory", "loss"), forward, carry=("memory",), model=model), UpdateOp(model, "loss", Adam)])
    )
    data = batches(4)
    step.start(data[0])
    for batch in data:
        step(batch, KEY)
    want = sum(np.array(b["x"]).sum(1) for b in data)
    np.testing.assert_allclose(np.array(step.state["carry"]["memory"]), want, rtol=1e-5)


class JvpObjective(Objective):
    """A loss through a Jacobian-vector product with a stopped target, as MeanFlow has."""

    def __call__(self, model, batch, ctx):
        u, dudt = mx.jvp(model, [batch["x"]], [batch["y"]])
        return (u[0] - mx.stop_gradient(batch["y"] + dudt[0])).square().mean(), {}


def test_jvp_objective_equals_the_hand_written_gradient():
    model = mlp()
    network = Network([ObjectiveOp(model, JvpObjective()), UpdateOp(model, "loss", optim.SGD, 0.1)])
    step, batch = TrainStep(network), batches(1)[0]
    step.start(batch)
    step(batch, KEY)
    hand = mlp()
    target = batch["y"] + mx.jvp(hand, [batch["x"]], [batch["y"]])[1][0]
    _, grads = nn.value_and_grad(hand, lambda: (hand(batch["x"]) - target).square().mean())()
    optim.SGD(learning_rate=0.1).update(hand, grads)
    assert_same(weights(model), weights(hand), rtol=1e-4, atol=1e-6)


def test_a_teacher_is_state_not_a_constant():
    student, teacher = mlp(1), mlp(2)

    def forward(data, ctx, student, teacher):
        return {"loss": (student(data["x"]) - mx.stop_gradient(teacher(data["x"]))).square().mean()}

    network = Network(
        [Apply("loss", forward, student=student, teacher=teacher), UpdateOp(student, "loss", Adam, name="student")]
    )
    step, batch = TrainStep(network), batches(1)[0]
    step.start(batch)
    step(batch, KEY)
    teacher.update(student.parameters())  # the teacher becomes the student: the loss must vanish
    assert float(step(batch, KEY)["loss"]) < 1e-12


def test_batch_norm_statistics_advance_once_with_two_losses():
    mx.random.seed(0)
    body, head = nn.BatchNorm(2), mlp(3)

    def forward(data, ctx, body, head):
        h = body(data["x"])
        return {"a": h.square().mean() + h.sum() * 0.1, "b": head(h).square().mean()}

    network = Network([
        Apply(("a", "b"), forward, body=body, head=head),
        UpdateOp(body, "a", optim.SGD, 0.0, name="body"), UpdateOp(head, "b", optim.SGD, 0.0, name="head"),
    ])  # fmt: skip
    step, batch = TrainStep(network), batches(1)[0]
    step.start(batch)
    step(batch, KEY)
    np.testing.assert_allclose(np.array(body.running_mean), 0.1 * np.array(batch["x"]).mean(0), rtol=1e-5)


def test_an_op_may_take_input_gradients_by_rerunning_the_graph():
    def attack(data, ctx):
        gradient = mx.grad(lambda x: ctx.run({"x": x}, attacker)["clean_loss"])(data["x"])
        return {"adversarial": mx.stop_gradient(data["x"] + 0.1 * mx.sign(gradient))}

    model, attacker = mlp(), Apply("adversarial", attack)

    def clean(data, ctx, model):
        return {"clean_loss": (model(data["x"]) - data["y"]).square().mean()}

    def final(data, ctx, model):
        return {"loss": (model(data["adversarial"]) - data["y"]).square().mean()}

    network = Network([Apply("clean_loss", clean, model=model), attacker,
                       Apply("loss", final, model=model), UpdateOp(model, "loss", optim.SGD, 0.0)])  # fmt: skip
    step, batch = TrainStep(network), batches(1)[0]
    step.start(batch)
    out = step(batch, KEY, fetch=["adversarial"])
    gradient = mx.grad(lambda x: (model(x) - batch["y"]).square().mean())(batch["x"])
    np.testing.assert_allclose(np.array(out["adversarial"]), np.array(batch["x"] + 0.1 * mx.sign(gradient)), rtol=1e-6)


def test_ops_after_the_update_see_the_weights_from_before_it():
    model = mlp()
    total = Apply("total", lambda data, ctx, model: {"total": model.layers[0].weight.sum()}, model=model)
    step = TrainStep(Network([ObjectiveOp(model, Regression()), UpdateOp(model, "loss", optim.SGD, 1.0), total]))
    batch = batches(1)[0]
    step.start(batch)
    before = float(model.layers[0].weight.sum())
    out = step(batch, KEY, fetch=["total"])
    assert float(out["total"]) == pytest.approx(before, abs=1e-6)
    assert float(model.layers[0].weight.sum()) != pytest.approx(before, abs=1e-4)
