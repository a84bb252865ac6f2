"""Several models and losses in one step against steps written by hand in plain MLX: a GAN, a shared encoder."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from models import attention
from models.batch_norm import BatchNorm
from models.convolution import Conv2d
from models.dcgan import Generator
from models.lenet import LeNet
from models.linear import Linear
from models.unet import UNet
from models.vit import ViT
from ops.model_op import ModelOp
from runtime.op import TensorOp
from tests.models.parity import filled, given
from tests.training.by_hand import KEY, Apply, assert_same, batches, mlp, weights
from training.build import build
from training.forward import judged_arrays
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp


class Critic(nn.Module):
    """Images (B, 8, 8, 1) to a logit; its batch norm sees real images, then generated ones."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = Conv2d(1, 4, 5, stride=2), Conv2d(4, 8, 5, stride=2, bias=False)
        self.norm, self.leave = BatchNorm(8), Linear(32, 1)

    def __call__(self, x):
        h = nn.leaky_relu(self.norm(self.conv2(nn.leaky_relu(self.conv1(x)))))
        return self.leave(h.reshape(len(x), -1))


def pair():
    mx.random.seed(3)
    models = {"generator": Generator((8, 8, 1), noise=4, channels=8), "critic": Critic()}
    mx.eval([model.parameters() for model in models.values()])
    return models


class CriticLoss(TensorOp):
    def forward(self, data, state):
        real, fake = data
        return (nn.softplus(-real) + nn.softplus(fake)).mean()


class GeneratorLoss(TensorOp):
    def forward(self, data, state):
        return nn.softplus(-data).mean()


def adam():
    return optim.Adam(1e-3, betas=[0.5, 0.999], bias_correction=True)


def gan(models, critic_options=None, **options):
    generator = build(lambda: models["generator"], adam, model_name="generator")
    critic = build(lambda: models["critic"], adam, model_name="critic")
    return TrainStep(Network([
        ModelOp(generator, "z", "fake"),
        ModelOp(critic, "x", "real_score"),
        ModelOp(critic, "fake", "fake_score"),
        CriticLoss(("real_score", "fake_score"), "critic_loss"),
        GeneratorLoss("fake_score", "generator_loss"),
        UpdateOp(critic, "critic_loss", **(critic_options or {})),
        UpdateOp(generator, "generator_loss"),
    ]), **options)  # fmt: skip


def images(count):
    rng = np.random.default_rng(0)
    return [{"x": mx.array(rng.normal(size=(6, 8, 8, 1)).astype(np.float32)),
             "z": mx.array(rng.normal(size=(6, 4)).astype(np.float32))} for _ in range(count)]  # fmt: skip


def gan_by_hand(models, data, every=1):
    """Both losses' gradients at the same weights, Adam for each; the critic moves by the mean of `every` gradients."""
    generator, critic = models["generator"].train(), models["critic"].train()
    of_generator, of_critic = adam(), adam()
    collected = []

    def losses(batch):
        fake = generator(batch["z"])
        real_score, fake_score = critic(batch["x"]), critic(fake)
        return (nn.softplus(-real_score) + nn.softplus(fake_score)).mean(), nn.softplus(-fake_score).mean()

    for i, batch in enumerate(data):
        _, grads = nn.value_and_grad(critic, lambda batch=batch: losses(batch)[0])()
        collected.append(dict(tree_flatten(grads)))
        once = [(model, [leaf for leaf in tree_flatten(model.parameters()) if "running" in leaf[0]])
                for model in (generator, critic)]  # fmt: skip
        _, grads = nn.value_and_grad(generator, lambda batch=batch: losses(batch)[1])()
        for model, statistics in once:  # one pass over the batch counts, not both
            model.load_weights(statistics, strict=False)
        of_generator.update(generator, grads)
        if (i + 1) % every == 0:
            mean = {path: sum(grads[path] for grads in collected) / every for path in collected[0]}
            of_critic.update(critic, tree_unflatten(list(mean.items())))
            collected = []
        mx.eval(generator.parameters(), critic.parameters())
    return {name: weights(model) for name, model in models.items()}


def trained(step, data):
    for batch in data:
        step(batch, KEY)
    return {name: weights(model) for name, model in step.network.models.items()}


@pytest.mark.parametrize("flatten", [False, True])
def test_a_gan_equals_a_step_by_hand(flatten):
    data = images(10)
    found, wanted = trained(gan(pair(), flatten=flatten), data), gan_by_hand(pair(), data)
    start = {name: weights(model) for name, model in pair().items()}
    for name in ("generator", "critic"):
        assert_same(found[name], wanted[name], atol=1e-6)
        assert all(np.abs(wanted[name][path] - start[name][path]).max() > 1e-3 for path in start[name])


@pytest.mark.parametrize("defer", [False, True])
def test_a_critic_that_moves_every_second_step_equals_one_by_hand(defer):
    data = images(6)
    found = trained(gan(pair(), critic_options={"merge_grad": 2, "defer": defer}), data)
    wanted = gan_by_hand(pair(), data, every=2)
    for name in ("generator", "critic"):
        assert_same(found[name], wanted[name], atol=1e-6)


def encoder_and_heads():
    return {"encoder": mlp(1, (2, 6, 4)), "left": mlp(2, (4, 3)), "right": mlp(3, (4, 3))}


def three_losses(batch, encoder, left, right):
    h = mx.tanh(encoder(batch["x"]))
    one, two = left(h), right(h)
    return {"a": one.square().mean(), "b": (two - 1).square().mean(), "c": (one * two).mean()}


UPDATES = {
    "each on its own": [("encoder", "a", 0.5), ("left", "b", 0.3), ("right", "c", 0.2)],
    "shared by two losses": [("encoder", "a", 0.5), ("left", "a", 0.5), ("right", "b", 0.3)],
    "one model by three losses": [("encoder", "a", 0.5), ("encoder", "b", 0.3), ("encoder", "c", 0.2)],
}


OPTIONS = [
    {}, {"compile": False}, {"accumulate": 2}, {"precision": "fp16"}, {"flatten": True},
    {"flatten": True, "precision": "fp16"},
]  # fmt: skip


@pytest.mark.parametrize("case", UPDATES)
@pytest.mark.parametrize("options", OPTIONS)
def test_every_update_follows_its_own_loss(case, options):
    models, data = encoder_and_heads(), batches(6, rows=4)
    ops = [UpdateOp(models[name], loss, optim.SGD, rate, name=name) for name, loss, rate in UPDATES[case]]
    network = Network([Apply(("a", "b", "c"), lambda data, ctx, **m: three_losses(data, **m), **models), *ops])
    step, window = TrainStep(network, **options), options.get("accumulate", 1)
    for i, batch in enumerate(data):
        out = step(batch, KEY, last=(i + 1) % window == 0)
    norms = {key for key in out if key.startswith("grad_norm")}
    shared = {f"grad_norm/encoder/{loss}" for loss in "abc"}
    assert norms == (shared if "one model" in case else {f"grad_norm/{name}" for name in models})
    hand = encoder_and_heads()
    for start in range(0, len(data), window):
        whole = {key: mx.concatenate([batch[key] for batch in data[start : start + window]]) for key in ("x", "y")}
        moves = []
        for name, loss, rate in UPDATES[case]:
            _, grads = nn.value_and_grad(hand[name], lambda batch, loss=loss: three_losses(batch, **hand)[loss])(whole)
            moves.append((hand[name], rate, dict(tree_flatten(grads))))
        for model, rate, grads in moves:  # only now
            leaves = dict(tree_flatten(model.parameters()))
            model.load_weights([(path, leaves[path] - rate * grad) for path, grad in grads.items()])
    tolerance = 5e-3 if "precision" in options else 1e-6
    for name in hand:
        assert_same(weights(models[name]), weights(hand[name]), atol=tolerance)


class Both(nn.Module):
    """A model made of two others."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def __call__(self, x):
        return self.second(mx.tanh(self.first(x)))


SHARING = {
    "the whole and a part": [("whole", "a", 0.5), ("encoder", "b", 0.3)],
    "a part and the whole": [("encoder", "b", 0.3), ("whole", "a", 0.5)],
    "two wholes": [("whole", "a", 0.5), ("other", "b", 0.3)],
    "a part of a whole that rests": [("encoder", "a", 0.5), ("other", "b", 0.3)],
}


@pytest.mark.parametrize("case", SHARING)
@pytest.mark.parametrize("options", [{}, {"flatten": True}, {"accumulate": 2}, {"precision": "bf16"}])
def test_a_module_may_be_part_of_several_models(case, options):
    def models():
        parts = encoder_and_heads()
        return {"whole": Both(parts["encoder"], parts["left"]), "encoder": parts["encoder"],
                "other": Both(parts["encoder"], parts["right"])}  # fmt: skip

    def losses(data, whole, encoder, other):
        return {"a": whole(data["x"]).square().mean() + encoder(data["x"]).mean(),
                "b": (other(data["x"]) - encoder(data["x"])[:, :3]).square().mean()}  # fmt: skip

    own, hand, (batch,) = models(), models(), batches(1)
    start = {name: weights(model) for name, model in own.items()}
    updates = [UpdateOp(own[name], loss, optim.SGD, rate, name=name, ema=[0.5]) for name, loss, rate in SHARING[case]]
    network = Network([Apply(("a", "b"), lambda data, ctx, **models: losses(data, **models), **own), *updates])
    step = TrainStep(network, **options)
    for i in range(options.get("accumulate", 1)):
        step(batch, KEY, last=i + 1 == options.get("accumulate", 1))
    moves = []
    for name, loss, rate in SHARING[case]:
        _, grads = nn.value_and_grad(hand[name], lambda batch, loss=loss: losses(batch, **hand)[loss])(batch)
        moves.append((hand[name], rate, dict(tree_flatten(grads))))
    for model, rate, grads in moves:
        leaves = dict(tree_flatten(model.parameters()))
        model.load_weights([(path, leaves[path] - rate * grad) for path, grad in grads.items()])
    for name in own:
        assert_same(weights(own[name]), weights(hand[name]), atol=2e-2 if "precision" in options else 1e-6)
    assert np.abs(weights(own["encoder"])["layers.0.weight"] - start["encoder"]["layers.0.weight"]).max() > 0.05
    judged = judged_arrays(network)
    assert all(mx.array_equal(judged[path], judged[first]).item() for path, first in network.first_paths.items())


def attending():
    return ViT((8, 8, 3), classes=4, patch=4, hidden=8, depth=2, heads=2)


def checkpointing():
    return UNet((8, 8, 3), channels=8, multipliers=(1, 2), blocks=1, attention=(4,), checkpoint=True)


def plainly(model, x):
    return model(x).square().mean()


def with_times(model, x):
    return model(x, mx.broadcast_to(mx.array([0.2, 0.7]), (len(x), 2))).square().mean()


def along(model, x):
    """What MeanFlow differentiates: a tangent, and its square."""
    return mx.jvp(model, [x], [mx.sin(x)])[1][0].square().mean()


BODIES = {
    "pooled convolutions": (lambda: LeNet((18, 18, 3), classes=4, logits=True), plainly),
    "fused attention": (attending, plainly),
    "fused attention, tangent": (attending, along),
    "checkpointed blocks": (checkpointing, with_times),
}


@pytest.mark.parametrize("case", BODIES)
def test_two_losses_pull_back_through_derivatives_of_our_own(case, monkeypatch):
    monkeypatch.setattr(attention, "mode", "fused")
    make, loss = BODIES[case]
    model = filled(make(), training=True)
    start, x = weights(model), given("x", (3, *model.shape))

    def losses(data, ctx, model):
        first = loss(model, data["x"])
        return {"a": mx.tanh(first), "b": first + mx.cos(first)}

    updates = [UpdateOp(model, name, optim.SGD, rate) for name, rate in (("a", 1.0), ("b", 0.25))]
    step = TrainStep(Network([Apply(("a", "b"), losses, model=model), *updates]))
    step({"x": x}, KEY)
    hand = filled(make(), training=True)
    value, grads = nn.value_and_grad(hand, lambda: loss(hand, x))()
    slope = 1.0 / np.cosh(float(value)) ** 2 + 0.25 * (1 - np.sin(float(value)))
    moved = {path: np.array(leaf) - start[path] for path, leaf in tree_flatten(model.parameters())}
    wanted = {path: -slope * np.array(g) for path, g in tree_flatten(grads)}
    assert_same(moved, wanted, rtol=1e-4, atol=1e-5 * max(np.abs(g).max() for g in wanted.values()))
