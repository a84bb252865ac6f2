"""Small networks, data and hand-written training for the tests of the step."""

import io
import re
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten

from runtime.op import Objective, ObjectiveOp, Op
from runtime.slots import snapshot
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp

Adam = partial(optim.AdamW, betas=[0.9, 0.99], weight_decay=0.01, bias_correction=True)
KEY = mx.random.key(0)


class Regression(Objective):
    """Mean squared error, for tests."""

    def __call__(self, model, batch, ctx):
        return (model(batch["x"]) - batch["y"]).square().mean(), {}


class Apply(Op):
    """Calls a function of models and data."""

    def __init__(self, outputs, function, carry=(), mode=None, **models):
        super().__init__(outputs=outputs, mode=mode)
        self.function, self.models, self.carry = function, models, carry

    def initial_carry(self, batch):
        return {name: mx.zeros((batch["x"].shape[0],)) for name in self.carry}

    def forward(self, data, ctx):
        return self.function(data=data, ctx=ctx, **{name: ctx.wrap(model) for name, model in self.models.items()})


def mlp(seed=0, sizes=(2, 16, 16, 2)):
    mx.random.seed(seed)
    model = nn.Sequential(*[nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)])
    mx.eval(model.parameters())
    return model


def batches(count, rows=8, seed=0, width=2):
    rng = np.random.default_rng(seed)
    return [
        {"x": mx.array(rng.normal(size=(rows, width)).astype(np.float32)),
         "y": mx.array(rng.normal(size=(rows, width)).astype(np.float32))}
        for _ in range(count)
    ]  # fmt: skip


def regression_step(model, **options):
    update = {k: options.pop(k) for k in ("clip", "ema", "groups", "learning_rate", "schedule") if k in options}
    network = Network(
        [ObjectiveOp(model, Regression()), UpdateOp(model, "loss", Adam, **{"learning_rate": 1e-2, **update})]
    )
    step = TrainStep(network, **options)
    step.start(batches(1)[0])
    return step


def weights(model):
    return {path: np.array(a) for path, a in tree_flatten(model.parameters())}


def assert_same(a, b, rtol=0.0, atol=0.0):
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_allclose(a[path], b[path], rtol=rtol, atol=atol, err_msg=path)


def by_hand(model, data, learning_rate=1e-2, optimizer=None):
    """Plain MLX training, uncompiled."""
    optimizer = optimizer or Adam(learning_rate=learning_rate)
    for batch in data:
        _, grads = nn.value_and_grad(model, lambda b: (model(b["x"]) - b["y"]).square().mean())(batch)
        optimizer.update(model, grads)
    mx.eval(model.parameters())
    return weights(model)


def primitives(*arrays):
    """Names of the nodes in MLX's graph behind arrays that are not computed yet."""
    graph = io.StringIO()
    mx.export_to_dot(graph, *arrays)
    return [name for name in re.findall(r'label ="(\w+)', graph.getvalue()) if not name.isdigit()]


def primitives_of(step, batch, fetch=()):
    """`primitives` of all that a second call of the step returns and changes."""
    step(batch, KEY, fetch)
    mx.eval(step.state)
    before = snapshot(step.state)
    out = step(batch, KEY, fetch)
    return primitives(*[a for path, a in snapshot(step.state).items() if a is not before[path]], *out.values())
