import pickle
from collections import Counter

import numpy as np
import pytest

from dataloaders.ops.meta import Fuse, OneOf, Repeat, Sometimes
from dataloaders.ops.numpy_op import Batch, Delete, NumpyOp, RemoveIf
from dataloaders.ops.values import ExpandDims, LambdaOp, Onehot
from dataloaders.pipeline import Pipeline
from runtime.errors import UsageError


def state(seed=0):
    return {"mode": "train", "epoch": 0, "ds_id": "", "rng": np.random.default_rng(seed)}


def add(amount, **options):
    return LambdaOp(lambda x: x + amount, "x", "x", **options)


def counts(op, draws=2000):
    given = state()
    return Counter(int(op({"x": 0}, given)["x"]) for _ in range(draws))


def test_sometimes_and_one_of_come_as_often_as_asked():
    found = counts(Sometimes(add(1), 0.3))
    assert set(found) == {0, 1} and abs(found[1] / 2000 - 0.3) < 0.04
    found = counts(OneOf(add(1), add(2), probs=[0.25, 0.75]))
    assert set(found) == {1, 2} and abs(found[1] / 2000 - 0.25) < 0.04
    found = counts(OneOf(add(1), add(2), add(3)))
    assert set(found) == {1, 2, 3} and max(abs(n / 2000 - 1 / 3) for n in found.values()) < 0.05


def test_fuse_runs_its_ops_in_order():
    ops = [LambdaOp(lambda x: 2 * x, "x", "h"), LambdaOp(lambda h, y: h + y, ["h", "y"], "z"), Delete("h"), Delete("y")]
    fuse = Fuse(ops)
    assert fuse.inputs == ("x", "y") and fuse.outputs == ("z",)
    assert fuse({"x": 3, "y": 1}, state()) == {"y": None, "z": 7}
    assert Fuse(add(1))({"x": 3}, state()) == {"x": 4}
    both = OneOf(Fuse([add(1), add(1)]), Fuse([add(10)]))
    assert set(counts(both, 50)) == {2, 10}


def test_repeat_counts_or_goes_on_as_long_as_its_function_is_true():
    assert Repeat(add(1), 5)({"x": 0}, state())["x"] == 5
    for limit, most, wanted in ((6.5, None, 7), (6.5, 3, 3), (-1, None, 1)):
        op = Repeat(add(1), lambda x, limit: x < limit, max_iter=most)
        assert op.inputs == ("x", "limit") and op({"x": 0, "limit": limit}, state()) == {"x": wanted}


def test_every_pass_draws_anew():
    class Noise(NumpyOp):
        def forward(self, data, state):
            return np.append(data, state["rng"].random())

    assert len(set(Repeat(Noise("x", "x"), 6)({"x": np.zeros(0)}, state())["x"])) == 6


class Rows:
    def __len__(self):
        return 8

    def __getitem__(self, i):
        return {"x": np.float32(i), "y": i % 2}


def test_metas_take_part_in_a_pipeline():
    ops = [
        Fuse([RemoveIf(lambda x: x < 4, "x", replacement=False), add(100)]),
        Sometimes(RemoveIf(lambda x: x > 105, "x", replacement=False), 1.0),
        Batch(),
        Repeat(add(1000), 2),
        Fuse([Onehot("y", "y", 2), ExpandDims("y", "y", axis=0)]),
    ]
    batch = Pipeline(eval_data=Rows(), batch_size=8, ops=ops).get_results("eval")
    assert sorted(batch["x"][batch["mask"] == 1]) == [2104, 2105]
    assert batch["y"].shape == (8, 1, 2)
    train = Pipeline(train_data=Rows(), batch_size=8, ops=ops)
    assert train.get_results("train")["mask"].sum() == 2


def test_draws_depend_on_seed_and_batch_alone():
    ops = [Sometimes(Plus("x", "x"), 0.5), OneOf(Plus("x", "x"), Fuse([Plus("x", "x"), Plus("x", "x")]))]
    first, again, other = (
        Pipeline(train_data=Rows(), batch_size=4, ops=some, seed=seed)
        for some, seed in ((ops, 1), (pickle.loads(pickle.dumps(ops)), 1), (ops, 2))
    )
    found = [np.concatenate([b["x"] for b in p.get_results("train", 4)]) for p in (first, again, other)]
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0] % 1, found[2] % 1)
    assert np.array_equal(next(iter(again.batches("train", 3)))["x"], found[0][12:])


class Plus(NumpyOp):
    """Adds a random number."""

    def forward(self, data, state):
        return data + state["rng"].random()


def test_errors_name_values():
    wrong = Batch()
    for make, message in (
        (lambda: Fuse([wrong]), "other than Batch, got Batch"),
        (lambda: Sometimes(wrong), "other than Batch, got Batch"),
        (lambda: Fuse([]), "one mode and ds_id, got no ops"),
        (lambda: OneOf(), "one mode and ds_id, got no ops"),
        (lambda: Fuse([add(1), add(1, mode="train")]), "one mode and ds_id, got"),
        (lambda: Sometimes(add(1), -0.1), "prob must lie in 0..1, got -0.1"),
        (lambda: OneOf(add(1), LambdaOp(abs, "x", "y")), "same inputs and outputs, got"),
        (lambda: OneOf(add(1), add(2), probs=[0.5, 0.6]), "sum 1"),
        (lambda: Repeat(add(1), 0), "got repeat=0"),
        (lambda: Repeat(add(1), 2, max_iter=2), "got repeat=2 and max_iter=2"),
        (lambda: Fuse([LambdaOp(abs, "h", "z")])({"x": 1}, state()), "'h'"),
        (lambda: Sometimes(Onehot("y", "y", 2)).set_rua_level(0.5), "which Onehot lacks"),
    ):
        with pytest.raises((UsageError, KeyError), match=message):
            make()
