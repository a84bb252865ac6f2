"""Fuse, Sometimes, OneOf and Repeat: what they compute, train, keep and refuse."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from ops.losses.regression import MeanSquaredError
from ops.meta.choice import OneOf, Repeat, Sometimes
from ops.meta.fuse import Fuse
from ops.model_op import ModelOp
from ops.tensor.gradient import FGSM
from ops.tensor.shapes import Delete, LambdaOp, Permute, Reshape
from runtime.errors import UsageError
from runtime.op import Context, Op
from tests.training.by_hand import Adam, assert_same, batches, by_hand, mlp, weights
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp

ZERO = mx.array(0, mx.int32)


def context(seed=0, mode="train", **options):
    return Context(mode, mx.random.key(seed), ZERO, ZERO, **options)


def forward(ops, data, seed=0, mode="train"):
    return Network(ops).forward(data, context(seed, mode))


def add(amount, **options):
    return LambdaOp(lambda z: z + amount, "z", "z", **options)


def outcomes(op, count=400):
    """What a compiled network with this op makes of z = 0 under many keys; it is traced once."""
    network, traced = Network([op]), []

    def run(z, key):
        traced.append(1)
        return network.forward({"z": z}, Context("train", key, ZERO, ZERO))["z"]

    compiled = mx.compile(run)
    found = np.array([compiled(mx.array(0.0), mx.random.key(i)).item() for i in range(count)])
    assert len(traced) == 1
    return found


def fused(model, *more):
    return [ModelOp(model, "x", "p", mode="!infer"), *more, MeanSquaredError(("p", "y"), "l")]


@pytest.mark.parametrize(
    "wrap",
    [
        Fuse,
        lambda ops: Fuse([Fuse(ops[:1]), Fuse(ops[1:])]),
        lambda ops: Repeat(Fuse(ops), 2),
        lambda ops: OneOf(Fuse(ops), Fuse(ops[:]), probs=[0.3, 0.7]),
    ],
)
def test_a_meta_op_around_model_and_loss_trains_the_model(wrap):
    model, data = mlp(), batches(5)
    network = Network([wrap(fused(model)), UpdateOp(model, "l", Adam, learning_rate=1e-2)])
    assert network.get_loss_keys() == ("l",) and list(network.models.values()) == [model]
    step = TrainStep(network)
    step.start(data[0])
    for i, batch in enumerate(data):
        step(batch, mx.random.key(i))
    assert_same(weights(model), by_hand(mlp(), data), rtol=1e-4, atol=1e-6)


def test_fuse_has_the_inputs_and_outputs_of_its_ops_together():
    ops = [LambdaOp(lambda x: 2 * x, "x", "h"), LambdaOp(lambda h, y: h + y, ["h", "y"], "z"), Delete("h"), Delete("y")]
    fuse = Fuse(ops)
    assert fuse.inputs == ("x", "y") and fuse.outputs == ("z",)
    found = forward([fuse], {"x": mx.array(3.0), "y": mx.array(1.0)})
    assert set(found) == {"x", "z"} and found["z"].item() == 7
    with pytest.raises(UsageError, match="LambdaOp misses y in mode train"):
        Fuse(ops)({"x": mx.array(3.0)}, context())


def test_modes_hold_for_all_that_is_inside():
    ops = [add(1.0, mode="train"), add(2.0, mode="train")]
    z = {"z": mx.array(0.0)}
    for op, trained in (
        (Fuse(ops), 3),
        (Repeat(ops[0], 3), 3),
        (OneOf(*ops, probs=[0, 1]), 2),
        (Sometimes(ops[0], 1.0), 1),
    ):
        assert op.mode == "train"
        assert forward([op], z)["z"].item() == trained and forward([op], z, mode="eval")["z"].item() == 0


def test_what_is_declared_inside_is_declared_outside():
    class Carrying(Op):
        metrics, carry = ("m",), ("c",)

        def initial_carry(self, batch):
            return {"c": mx.zeros(2)}

        def phase(self, step):
            return step // 2

        def forward(self, data, ctx):
            self.seen = ctx.phase
            return {"m": data["c"].sum(), "c": data["c"] + 1}

    inner = Carrying()
    network = Network([Fuse([Repeat(inner, 1)])])
    assert network.metrics == ("m",) and network.carry == ("c",)
    assert network.initial_carry({})["c"].tolist() == [0, 0]
    network.forward({"c": mx.zeros(2)}, context(phases=network.phases(5)))
    assert inner.seen == 2


def test_sometimes_comes_as_often_as_asked():
    found = outcomes(Sometimes(add(1.0), 0.3))
    assert set(found) == {0, 1} and abs(found.mean() - 0.3) < 0.07
    assert set(outcomes(Sometimes(add(1.0), 0.0), 20)) == {0} and set(outcomes(Sometimes(add(1.0), 1.0), 20)) == {1}


def test_one_of_comes_as_often_as_asked():
    found = outcomes(OneOf(add(1.0), add(2.0), add(4.0), probs=[0.2, 0.0, 0.8]))
    assert set(found) == {1, 4} and abs((found == 1).mean() - 0.2) < 0.06
    same = LambdaOp(lambda z: z, "z", "z")
    for pair in ((same, add(1.0)), (add(1.0), same)):  # an op may hand on the array that it got
        assert abs(outcomes(OneOf(*pair)).mean() - 0.5) < 0.08
    equal = outcomes(OneOf(add(1.0), add(2.0)))
    assert abs((equal == 1).mean() - 0.5) < 0.08


def test_two_choices_of_a_network_are_independent():
    found = outcomes(Fuse([Sometimes(add(1.0), 0.5), Sometimes(add(2.0), 0.5)]))
    assert all(abs((found == k).mean() - 0.25) < 0.07 for k in range(4))


class Counting(Op):
    """Counts its calls in its state, and doubles z."""

    def __init__(self):
        super().__init__("z", "z")
        self.state = {"calls": mx.array(0.0)}

    def forward(self, data, ctx):
        self.state["calls"] = self.state["calls"] + 1
        return {"z": 2 * data["z"]}


def test_only_what_is_selected_changes_states_and_layer_statistics():
    def normed():
        return nn.BatchNorm(2), Counting()

    def moved(model, counting):
        return (round(float(model.running_mean[0].item()), 6), counting.state["calls"].item())

    pairs = [normed(), normed()]
    ops = [Fuse([ModelOp(model, "z", "z"), counting]) for model, counting in pairs]
    z, data = mx.array([[1.0, 0], [3.0, 0]]), []
    for seed in range(6):
        for (model, counting), calls in zip(pairs, (0.0, 0.0), strict=True):
            model.running_mean, counting.state["calls"] = mx.zeros(2), mx.array(calls)
        forward([OneOf(*ops)], {"z": z}, seed)
        data.append(tuple(moved(*pair) for pair in pairs))
    assert set(data) == {((0.2, 1), (0, 0)), ((0, 0), (0.2, 1))}
    model, counting = normed()
    seen = set()
    for seed in range(6):
        model.running_mean, counting.state["calls"] = mx.zeros(2), mx.array(0.0)
        out = forward([Sometimes(Fuse([ModelOp(model, "z", "z"), counting]))], {"z": z}, seed)
        seen.add((bool((out["z"] == z).all()), *moved(model, counting)))
    assert seen == {(True, 0, 0), (False, 0.2, 1)}


def test_the_gradient_is_that_of_what_was_selected():
    double, square = LambdaOp(lambda z: 2 * z, "z", "z"), LambdaOp(mx.square, "z", "z")
    slopes = set()
    for seed in range(8):
        slopes.add(mx.grad(lambda z, s=seed: forward([OneOf(double, square)], {"z": z}, s)["z"])(mx.array(5.0)).item())
    assert slopes == {2, 10}
    power = Repeat(double, lambda z: z < 30, max_iter=8)  # 5, 10, 20, 40
    found, slope = mx.jvp(lambda z: forward([power], {"z": z})["z"], [mx.array(5.0)], [mx.array(1.0)])
    assert found[0].item() == 40 and slope[0].item() == 8


def test_repeat_goes_on_as_long_as_its_function_is_true():
    z = {"z": mx.array(0.0), "limit": mx.array(6.5)}
    assert forward([Repeat(add(1.0), 5)], z)["z"].item() == 5
    for limit, most, wanted in ((6.5, 20, 7), (6.5, 3, 3), (-1.0, 20, 1)):
        op = Repeat(add(1.0), lambda z, limit: z < limit, max_iter=most)
        assert op.inputs == ("z", "limit")
        run = mx.compile(lambda z, limit, op=op: forward([op], {"z": z, "limit": limit})["z"])
        assert run(mx.array(0.0), mx.array(limit)).item() == wanted
    counting = Counting()
    forward([Repeat(counting, lambda z: z < 30, max_iter=9)], {"z": mx.array(5.0)})
    assert counting.state["calls"].item() == 3


def test_every_pass_of_repeat_has_a_key_of_its_own():
    class Noise(Op):
        def forward(self, data, ctx):
            return {"z": mx.concatenate([data["z"], mx.random.uniform(shape=(1,), key=ctx.key)])}

    drawn = forward([Repeat(Noise("z", "z"), 6)], {"z": mx.zeros(0)})["z"]
    assert len(np.unique(np.array(drawn))) == 6


def attack(model, sign=1.0):
    return Fuse(
        [
            ModelOp(model, "x", "p"),
            MeanSquaredError(("p", "y"), "l", mode=None),
            FGSM("x", "l", "x", 0.1 * sign, clip_low=-9, clip_high=9),
        ]
    )


def test_a_gradient_inside_of_a_choice_is_that_of_its_own_branch():
    model, batch = mlp(), batches(1)[0]
    wanted = {
        sign: np.array(
            batch["x"] + sign * 0.1 * mx.sign(mx.grad(lambda x: (model(x) - batch["y"]).square().mean())(batch["x"]))
        )
        for sign in (1, -1)
    }
    metas = [
        OneOf(attack(model), attack(model, -1.0)),
        Fuse([ModelOp(model, "x", "p"), Sometimes(attack(model))]),
    ]
    seen = set()
    for seed in range(6):
        for i, meta in enumerate(metas):
            data = {"l": mx.array(0.0), "p": batch["y"], **batch}
            x = np.array(forward([meta], data, seed)["x"])
            named = {"up": wanted[1], "down": wanted[-1], "no": np.array(batch["x"])}
            seen |= {(i, name) for name, value in named.items() if np.allclose(x, value, rtol=1e-5)}
    assert seen == {(0, "up"), (0, "down"), (1, "up"), (1, "no")}


@pytest.mark.parametrize("compiled", [False, True])
def test_a_repeated_attack_takes_each_gradient_where_the_last_step_led(compiled):
    model, batch = mlp(), batches(1)[0]
    x = batch["x"]
    for _ in range(3):
        x = x + 0.1 * mx.sign(mx.grad(lambda x: (model(x) - batch["y"]).square().mean())(x))
    network = Network([Repeat(attack(model), 3), LambdaOp(lambda x: 1 * x, "x", "x")])
    run = mx.compile(lambda batch: network.forward(batch, context())["x"]) if compiled else None
    found = run(batch) if run else network.forward(batch, context())["x"]
    np.testing.assert_allclose(found, x, rtol=1e-5)


def test_what_a_graph_cannot_do_is_refused():
    wrong: Any = "flip"
    made = {"z": mx.zeros((2, 3))}
    for run, message in (
        (lambda: Fuse([add(1, mode="train"), add(1)]), "one mode and ds_id, got"),
        (lambda: Fuse([]), "one mode and ds_id, got no ops"),
        (lambda: Fuse([wrong]), "Fuse needs ops, got str"),
        (lambda: Sometimes(wrong), "Sometimes needs ops, got str"),
        (lambda: Sometimes(add(1), 1.5), "prob must lie in 0..1, got 1.5"),
        (lambda: OneOf(add(1), LambdaOp(abs, "z", "w")), "same inputs, outputs and modes, got 2 kinds"),
        (lambda: OneOf(add(1), add(2), probs=[0.5, 0.6]), r"2 probabilities with sum 1, got \[0.5, 0.6\]"),
        (lambda: Repeat(add(1), 0), "got repeat=0"),
        (lambda: Repeat(add(1), lambda z: z < 3), "max_iter=None"),
        (lambda: Repeat(add(1), 2, max_iter=3), "got repeat=2 and max_iter=3"),
        (lambda: forward([Repeat(add(1), lambda z: z < 3, 4)], made), r"one truth value, got shape \(2, 3\)"),
        (lambda: forward([Sometimes(LambdaOp(abs, "z", "w"))], made), "Sometimes misses w in mode train"),
        (lambda: forward([Sometimes(Permute("z", "z", (1, 0)))], made), r"got \(3, 2\) and \(2, 3\)"),
        (lambda: forward([OneOf(add(1), Reshape("z", "z", (6,)))], made), r"got \(6,\) and \(2, 3\)"),
        (lambda: forward([Sometimes(Delete("z"))], made), "can't take out z"),
        (lambda: Network([Fuse([Fuse([UpdateOp(mlp(), "l", Adam)])])]), "an UpdateOp can't stand inside of Fuse"),
    ):
        with pytest.raises(UsageError, match=message):
            run()
