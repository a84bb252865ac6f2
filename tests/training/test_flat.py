"""Parameter groups as vectors: the same training as leaf by leaf, in fewer kernels, whoever writes in between."""

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest

from runtime.op import ObjectiveOp
from runtime.seed import step_key
from runtime.slots import restore, snapshot, write
from tests.training.by_hand import Adam, Regression, assert_same, batches, mlp, primitives_of, regression_step, weights
from training.flat import Vector, vectors
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp

SIZES = (2, 7, 16, 2)


def step_of(flatten, **options):
    return regression_step(mlp(sizes=SIZES), flatten=flatten, **options)


def arrays(step):
    return {path: np.array(a.astype(mx.float32)) for path, a in snapshot(step.state).items()}


def run(step, count, start=0):
    for i, batch in enumerate(batches(start + count)[start:]):
        out = step(batch, step_key(0, start + i))
    return out


def test_views_of_a_joined_vector_are_the_leaves():
    model = mlp(sizes=SIZES)
    vector = Vector(UpdateOp(model, "loss", Adam), 0, "model")
    leaves = [mx.array(w) for w in weights(model).values()]
    whole = vector.join(leaves)
    assert whole.size % 64 == 0 and vector.paths == [f"model.{path}" for path in weights(model)]
    for view, leaf in zip(vector.views(whole), leaves, strict=True):
        assert mx.array_equal(view, leaf)


OPTIONS = [
    {},
    {"clip": 0.1, "ema": [0.9, 0.99]},
    {"groups": [{"match": "bias", "learning_rate": 1e-3}, {"match": "1.weight", "optimizer": optim.SGD}], "ema": [0.9]},
    {"compile": False, "ema": [0.9]},
]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("options", OPTIONS)
def test_training_is_the_same(precision, options):
    flat, plain = step_of(True, precision=precision, **options), step_of(False, precision=precision, **options)
    outs = [run(step, 6) for step in (flat, plain)]
    assert len(flat.vectors) == len(options.get("groups", [])) + 1 and not plain.vectors
    assert_same(arrays(flat), arrays(plain), rtol=2e-5, atol=1e-6)
    for name in outs[1]:
        assert np.allclose(np.array(outs[0][name]), np.array(outs[1][name]), rtol=1e-4), name


def test_a_bad_batch_changes_nothing():
    step = step_of(True, ema=[0.9])
    run(step, 2)
    before = arrays(step)
    batch = batches(1)[0]
    step({**batch, "x": batch["x"] * float("nan")}, step_key(0, 9))
    after = arrays(step)
    assert after.pop("skipped") == before.pop("skipped") + 1
    for counter in ("step", "streak"):
        assert after.pop(counter) == before.pop(counter) + 1
    assert_same(after, before)
    run(step, 1)
    assert any((arrays(step)[path] != before[path]).any() for path in before)


def test_what_others_write_between_steps_counts():
    flat, plain = step_of(True, ema=[0.9]), step_of(False, ema=[0.9])
    for step in (flat, plain):
        run(step, 2)
        kept = snapshot(step.state)
        run(step, 2, start=2)
        restore(step.state, kept, "a checkpoint")
        write(step.network.models, {"model.layers.0.weight": mx.ones((7, 2))})
        step.network.updates[0].averages.reset(step.network.updates[0].leaves())
        run(step, 2, start=2)
    assert_same(arrays(flat), arrays(plain), rtol=2e-5, atol=1e-6)


def test_only_what_is_elementwise_float32_and_trained_once_is_joined():
    model, other = mlp(), mlp(seed=1)
    loss = ObjectiveOp(model, Regression())
    assert len(vectors(Network([loss, UpdateOp(model, "loss", Adam)]))) == 1
    assert vectors(Network([loss, UpdateOp(model, "loss", optim.Muon)])) == []
    assert vectors(Network([loss, UpdateOp(model, "loss", optim.Adafactor)])) == []
    twice = Network([loss, UpdateOp(model, "loss", Adam), UpdateOp(model, "loss", Adam)])
    assert vectors(twice) == []
    second = ObjectiveOp(other, Regression(), "other")
    assert (
        len(
            vectors(Network([loss, second, UpdateOp(model, "loss", Adam), UpdateOp(other, "loss", Adam, name="other")]))
        )
        == 2
    )
    step = TrainStep(Network([loss, UpdateOp(model, "loss", Adam)]), accumulate=2, flatten=True)
    step.start(batches(1)[0])
    step(batches(1)[0], step_key(0, 0), last=False)
    assert step.vectors == []


def kernels(flatten):
    """Nodes of a step's graph that cost a launch."""
    step = regression_step(mlp(sizes=(2, *[16] * 12, 2)), precision="bf16", ema=[0.9], flatten=flatten)
    free = ("Slice", "Reshape", "Flatten", "Unflatten", "Broadcast", "ExpandDims", "Squeeze", "Transpose")
    return sum(not name.startswith(free) for name in primitives_of(step, batches(1)[0]))


def test_fewer_kernels():
    leaf_by_leaf, joined = kernels(False), kernels(True)
    # per leaf: a cast, a square, a sum and an update of weights, slots and average; but for one copy into the vector
    assert joined <= leaf_by_leaf - 3 * 26
