"""Gradients as views of one vector: the same numbers as leaf by leaf, in fewer kernels."""

import io

import mlx.core as mx
import numpy as np
import pytest

from runtime.seed import step_key
from runtime.slots import snapshot
from tests.training.by_hand import assert_same, batches, mlp, regression_step
from training.step import packed


def test_views_hold_every_leaf_in_float32_whatever_its_size():
    rng = np.random.default_rng(0)
    shapes = {"a": (3,), "b": (4, 8), "c": (1, 5, 2), "d": (16,), "e": ()}
    leaves = {name: mx.array(rng.normal(size=shape)).astype(mx.bfloat16) for name, shape in shapes.items()}
    views, norm = packed(leaves, mx.array(2.0))
    assert list(views) == list(leaves)
    for name, leaf in leaves.items():
        assert views[name].dtype == mx.float32 and views[name].shape == shapes[name]
        assert mx.array_equal(views[name], leaf.astype(mx.float32) / 2)
    by_hand = np.sqrt(sum(float(mx.square(v).sum()) for v in views.values()))
    assert float(norm) == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_is_the_same_packed_or_not(precision, accumulate):
    ends, norms = [], []
    for packs in (True, False):
        step = regression_step(
            mlp(sizes=(2, 7, 16, 2)), clip=0.1, ema=[0.9], precision=precision, accumulate=accumulate
        )
        step.packs = packs
        for i, batch in enumerate(batches(6)):
            out = step(batch, step_key(0, i), last=i % accumulate == accumulate - 1)
        ends.append({path: np.array(a.astype(mx.float32)) for path, a in snapshot(step.state).items()})
        norms.append(float(out["grad_norm"]))
    assert_same(*ends, rtol=2e-5, atol=1e-6)
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def launches(packs: bool) -> int:
    """Sums, squares and casts in the graph of a bf16 step."""
    step = regression_step(mlp(sizes=(2, *[16] * 12, 2)), precision="bf16")
    step.packs = packs
    batch, key = batches(1)[0], step_key(0, 0)
    step(batch, key)
    mx.eval(step.state)
    before = snapshot(step.state)
    step(batch, key)
    graph = io.StringIO()
    mx.export_to_dot(graph, *[a for path, a in snapshot(step.state).items() if a is not before[path]])
    return sum(
        any(f'label ="{name}"' in line for name in ("Sum", "Square", "AsType"))
        for line in graph.getvalue().splitlines()
    )


def test_packed_steps_launch_fewer_kernels():
    assert launches(True) <= launches(False) - 2 * 26  # a square and a sum for each of 26 leaves
