"""HRM's counts, its order of updates, and for all recursive models that only the last cycle costs gradients."""

from typing import Any

import mlx.core as mx
import pytest

from losses.act import ACT
from models.hrm import HRM
from models.trm import TRM
from runtime.errors import UsageError
from runtime.op import ObjectiveOp
from runtime.trees import count_parameters
from tests.training.by_hand import Adam, primitives, primitives_of
from tests.training.test_products import products
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp

PUZZLES = {"sudoku": (11, 81), "maze": (6, 900), "arc": (12, 900)}
COUNTS = {  # PyTorch's of the repositories' classes, without puzzle embeddings
    ("hrm", "sudoku"): 27_275_266, ("hrm", "maze"): 27_270_146, ("hrm", "arc"): 27_276_290,
    ("trm", "sudoku"): 6_828_034, ("trm", "maze"): 6_822_914, ("trm", "arc"): 6_829_058,
    ("trm_mlp", "sudoku"): 5_028_866, ("trm_mlp", "maze"): 18_795_522, ("trm_mlp", "arc"): 18_801_666,
}  # fmt: skip
KINDS = {"trm": TRM, "trm_mlp": lambda *args, **sizes: TRM(*args, **sizes, mixer="mlp"), "hrm": HRM}
SMALL: dict[str, Any] = {"hidden": 8, "heads": 2, "layers": 2, "prefix": 1}
EVERY = pytest.mark.parametrize("kind", list(KINDS))


@pytest.mark.parametrize(("kind", "puzzle"), list(COUNTS))
def test_counts_equal_the_published_ones(kind, puzzle):
    before = mx.get_active_memory()
    model = KINDS[kind](*PUZZLES[puzzle])
    assert count_parameters(model, trainable=True) == COUNTS[kind, puzzle]
    assert mx.get_active_memory() - before < 1e6  # lazy: no weight is ever computed


def test_hrm_updates_z_often_and_y_rarely():
    model, seen = HRM(5, 3, **SMALL, high=2, low=3), []
    e = mx.zeros((1, 4, 8))

    class Noted:
        def __init__(self, name, add):
            self.name, self.add = name, add

        def __call__(self, state, injected):
            seen.append((self.name, state[0, 0, 0].item(), injected[0, 0, 0].item()))
            return state + self.add

    model["low_net"], model["high_net"] = Noted("z", 1), Noted("y", 100)
    y, z = model.think(e + 1000, e, e + 0.5)
    assert seen == [
        ("z", 0, 1000.5), ("z", 1, 1000.5), ("z", 2, 1000.5), ("y", 1000, 3),
        ("z", 3, 1100.5), ("z", 4, 1100.5), ("z", 5, 1100.5), ("y", 1100, 6),
    ]  # fmt: skip
    assert (y[0, 0, 0].item(), z[0, 0, 0].item()) == (1200, 6)


def step_products(kind, q_continue=False, **sizes):
    """Matrix products of a training step, the update included."""
    model = KINDS[kind](5, 3, **SMALL, **sizes)
    network = Network([ObjectiveOp(model, ACT(4, q_continue=q_continue)), UpdateOp(model, "loss", Adam)])
    step = TrainStep(network, compile=False)
    batch = {name: mx.zeros((2, 3), mx.int32) for name in ("x", "label")} | {"puzzle": mx.zeros(2, mx.int32)}
    step.start(batch)
    return products(primitives_of(step, batch))


def forward_products(net):
    return products(primitives(net(*(mx.random.normal((2, 4, 8)) for _ in range(2)))))


@EVERY
def test_more_cycles_cost_their_forward_products_only(kind):
    model = KINDS[kind](5, 3, **SMALL)
    low, high = (model.low_net, model.high_net) if kind == "hrm" else (model.net, model.net)
    one_low, one_high = forward_products(low), forward_products(high)
    few, more = step_products(kind, high=1, low=2), step_products(kind, high=3, low=2)
    assert more - few == 2 * (2 * one_low + one_high)


def test_more_updates_of_hrm_cost_their_forward_products_only():
    one = forward_products(HRM(5, 3, **SMALL).low_net)
    assert step_products("hrm", high=2, low=3) - step_products("hrm", high=2, low=1) == 2 * 2 * one


@pytest.mark.parametrize("kind", ["trm", "hrm"])
def test_what_the_next_step_says_costs_a_forward_pass_without_logits(kind):
    model = KINDS[kind](5, 3, **SMALL, high=2, low=2)
    states = [mx.random.normal((2, 4, 8)) for _ in range(2)]
    *_, q = model(mx.zeros((2, 3), mx.int32), *states)
    extra = step_products(kind, True, high=2, low=2) - step_products(kind, high=2, low=2)
    assert extra == products(primitives(q))


def peak(model, x):
    """Bytes at most in memory for a gradient, beyond what is there before."""
    states = [mx.random.normal((len(x), model.tokens, model.hidden)) for _ in range(2)]
    parameters = model.trainable_parameters()

    def loss(parameters):
        model.update(parameters)
        return model(x, *states)[2].square().sum()

    mx.eval(parameters, states, x)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(mx.grad(loss)(parameters))
    return mx.get_peak_memory() - before


class Through(TRM):
    """Gradients through all cycles."""

    def think(self, y, z, e):
        for _ in range(self.high):
            y, z = self.cycle(y, z, e)
        return y, z


@pytest.mark.usefixtures("still_memory")
def test_cycles_without_gradients_take_no_memory():
    sizes = {"hidden": 32, "heads": 2, "layers": 2, "low": 2, "prefix": 1, "mixer": "mlp"}
    x = mx.zeros((32, 15), mx.int32)
    one, three = (peak(TRM(5, 15, **sizes, high=high), x) for high in (1, 3))
    through = peak(Through(5, 15, **sizes, high=3), x)
    assert three < 1.1 * one and through > 2.2 * three


@pytest.mark.parametrize("options, word", [({"layers": 0}, "layers"), ({"heads": 3}, "heads")])
def test_options_that_do_not_fit(options, word):
    with pytest.raises(UsageError, match=word):
        HRM(5, 3, **{**SMALL, **options})
