"""Matrix products and convolutions of a compiled step, counted in MLX's graph, against the count by hand.

By hand, every layer that is a product costs one forward, one for the gradient of its weights and one for that of its
input, if something trains behind it; a bias of models/linear.py costs one more (its column sums are a product), a batch
norm two forward and two backward.
"""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest

from models.checkpointing import checkpointed
from models.convolution import Conv2d, Convolution
from models.dcgan import Discriminator, Generator
from models.linear import Linear
from models.transformer import MultiHeadAttention
from ops.model_op import ModelOp
from ops.tensor.gradient import FGSM
from tests.training.by_hand import KEY, Adam, Apply, primitives, primitives_of
from training.forward import ForwardStep, judged_arrays
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp

X = mx.random.normal((4, 6, 6, 2), key=mx.random.key(1))


@pytest.fixture(autouse=True)
def one_product_a_convolution(monkeypatch):
    """On a CPU a form of a convolution can be several products, else it is one."""
    monkeypatch.setattr(Convolution, "weight_gradient", "convolution")


def products(names):
    return sum(name.startswith(("Convolution", "Matmul", "AddMM", "GatherMM", "ScaledDot")) for name in names)


def counted(ops, batch=None, fetch=()):
    return products(primitives_of(TrainStep(Network(ops)), batch or {"x": X}, fetch))


class Body(nn.Module):
    """Two convolutions and a linear layer: (B, 6, 6, 2) -> (B, 5)."""

    def __init__(self, conv, linear):
        super().__init__()
        self.first, self.second, self.leave = conv(2, 3, 3), conv(3, 4, 3), linear(4, 5)

    def __call__(self, x):
        return self.leave(mx.tanh(self.second(mx.tanh(self.first(x)))).mean(axis=(1, 2)))


PLAIN = {"conv": nn.Conv2d, "linear": nn.Linear}
OURS = {"conv": Conv2d, "linear": Linear}


def square(value):
    return value.square().mean()


@pytest.mark.parametrize(("kinds", "bias_products"), [(PLAIN, 0), (OURS, 1)])
def test_several_ops_metrics_and_fetched_keys_cost_nothing_more(kinds, bias_products):
    model = Body(**kinds)
    ops = [
        Apply("y_pred", lambda data, ctx, model: {"y_pred": model(data["x"])}, model=model),
        Apply(("loss", "error"), lambda data, ctx: {"loss": square(data["y_pred"]), "error": data["y_pred"].max()}),
        UpdateOp(model, "loss", Adam, ema=[0.9], clip=1.0),
        Apply("after", lambda data, ctx: {"after": data["y_pred"].argmax(axis=1)}),
    ]
    keys = ("y_pred", "loss", "error", "after")
    network = Network(ops)
    mx.eval(model)
    evaluated = ForwardStep(network, "eval")(judged_arrays(network), {"x": X}, KEY, keys)
    assert sorted(evaluated) == sorted(keys) and products(primitives(*evaluated.values())) == 3
    assert counted(ops, fetch=keys) == 3 + 3 + 2 + bias_products


def two_losses(body, head):
    return [
        Apply(("h", "out"), lambda data, ctx, body, head: {"out": head(body(data["x"]))}, body=body, head=head),
        Apply(("a", "b"), lambda data, ctx: {"a": square(data["out"]), "b": mx.abs(data["out"] - 1).mean()}),
        UpdateOp(body, "a", optim.SGD, 0.1, name="body"),
        UpdateOp(head, "b", optim.SGD, 0.1, name="head"),
    ]


@pytest.mark.parametrize(("kinds", "bias_products"), [(PLAIN, 0), (OURS, 2)])
def test_two_losses_share_the_forward_pass(kinds, bias_products):
    ops = two_losses(Body(**kinds), kinds["linear"](5, 3))
    forward, of_a, of_b = 4, 3 + 2 + 1, 1  # a goes through the head to the body, b only to the head
    assert counted(ops) == forward + of_a + of_b + bias_products


def test_three_losses_of_one_model_share_the_forward_pass_and_each_has_its_backward():
    body = Body(**OURS)

    def losses(data, ctx, body):
        out = body(data["x"])
        return {"a": square(out), "b": mx.abs(out).mean(), "c": mx.exp(out).mean()}

    updates = [UpdateOp(body, name, optim.SGD, 0.1) for name in "abc"]
    assert counted([Apply(("a", "b", "c"), losses, body=body), *updates]) == 3 + 3 * (3 + 2 + 1)


class Checkpointed(nn.Module):
    """A linear layer, then a block of two that is computed anew for the gradient."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(2, 4)
        self.block = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))

    def __call__(self, x):
        return checkpointed(self.block, mx.tanh(self.enter(x)))


def test_a_checkpointed_block_runs_once_more_a_backward_pass():
    body, head = Checkpointed(), nn.Linear(4, 3)
    one = [Apply("loss", lambda data, ctx, body: {"loss": square(body(data["x"]))}, body=body),
           UpdateOp(body, "loss", optim.SGD, 0.1, name="body")]  # fmt: skip
    # its second layer's output is no part of a gradient: 1 product again; weights 3, inputs 2
    assert counted(one) == 3 + 1 + 3 + 2
    # the head's loss doesn't reach the block
    assert counted(two_losses(body, head)) == 4 + (1 + 3 + 2 + 1) + 1


def test_attention_is_not_computed_again_for_the_gradient():
    model, head = MultiHeadAttention(8, 2), nn.Linear(8, 3)
    x = mx.random.normal((2, 5, 8), key=KEY)

    def forward(data, ctx, model, head):
        h, _ = model(data["x"])
        return {"a": square(head(h)), "b": mx.abs(head(h)).mean()}

    ops = [Apply(("a", "b"), forward, model=model, head=head), UpdateOp(model, "a", optim.SGD, 0.1, name="model"),
           UpdateOp(head, "b", optim.SGD, 0.1, name="head")]  # fmt: skip
    # q, k, v, the projection and the head; q k^T and p v. Backward: weights, biases, through projection and head;
    # gradients of v, p, q and k; the head's own weights
    assert counted(ops, {"x": x}) == (5 + 2) + (4 + 4 + 2 + 4) + 1


def test_a_gan_runs_its_networks_once():
    generator, critic = Generator((8, 8, 1), noise=4, channels=8), Discriminator((8, 8, 1), channels=4)

    def forward(data, ctx, generator, critic):
        fake = generator(data["z"])
        real_score, fake_score = critic(data["x"]), critic(fake)
        return {"d": (nn.softplus(-real_score) + nn.softplus(fake_score)).mean(), "g": nn.softplus(-fake_score).mean()}

    ops = [Apply(("d", "g"), forward, generator=generator, critic=critic),
           UpdateOp(critic, "d", Adam, name="critic"), UpdateOp(generator, "g", Adam, name="generator")]  # fmt: skip
    batch = {"x": mx.random.normal((3, 8, 8, 1), key=KEY), "z": mx.random.normal((3, 4), key=KEY)}
    forward_products = 4 + 2 * 3  # generator, critic of real and of fake images
    of_d = 2 * (3 + 2 + 1)  # both times weights, inputs but the image, the bias of the linear layer
    of_g = 3 + 4 + 3  # through the critic; the generator's weights (its linear layer has no bias) and inputs
    of_norms = 3 * (2 + 2)  # the generator's: sums for mean and variance, for the gradients of shift and scale
    assert counted(ops, batch) == forward_products + of_d + of_g + of_norms


@pytest.mark.parametrize(("kinds", "bias_products", "again"), [(PLAIN, 0, 0), (OURS, 1, 2)])
def test_an_attack_runs_the_graph_again_behind_custom_functions(kinds, bias_products, again):
    model = Body(**kinds)
    ops = [
        ModelOp(model, "x", "clean_pred"),
        Apply("clean", lambda data, ctx: {"clean": square(data["clean_pred"])}),
        FGSM("x", "clean", "attacked", 0.01),
        ModelOp(model, "attacked", "hard_pred"),
        Apply("loss", lambda data, ctx: {"loss": data["clean"] + square(data["hard_pred"])}),
        UpdateOp(model, "loss", optim.SGD, 0.1),
    ]
    attack = 3 + 3  # forward, and the gradient of the image
    # The attack's gradient runs the graph again; mx.compile merges that with the first run but for the layers behind
    # the first custom function: an excess of 2, of 21.
    assert counted(ops) == attack + 3 + 2 * (3 + 2 + bias_products) + again
