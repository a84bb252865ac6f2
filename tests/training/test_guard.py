"""The guard around an update: plain selection in value, one fused kernel per leaf in the compiled step."""

import mlx.core as mx
import numpy as np
import pytest

from tests.training.by_hand import batches, mlp, primitives_of, regression_step
from training import step as module
from training.guard import guarded


def selected(ok, moved, held):
    """The same in the plainest way."""
    return {path: mx.where(ok, new, held[path]) for path, new in moved.items()}


@pytest.mark.parametrize("ok", [True, False])
def test_values_are_those_of_a_plain_selection(ok):
    rng = np.random.default_rng(0)
    paths = [
        "models.model.layers.0.weight", "models.model.layers.0.bias", "models.model.layers.10.weight",
        "ops.1.optimizer.layers.0.weight.m", "ops.1.optimizer.layers.0.weight.v", "ops.1.ema.0.layers.0.weight",
        "ops.1.optimizer.layers.10.weight.m", "ops.1.optimizer.step",
    ]  # fmt: skip
    shapes = [() if path.endswith("step") else (2, 3) for path in paths]
    held, moved = ({p: mx.array(rng.normal(size=s)) for p, s in zip(paths, shapes, strict=True)} for _ in range(2))
    found, wanted = (f(mx.array(ok), moved, held) for f in (guarded, selected))
    assert found.keys() == wanted.keys()
    for path in paths:
        assert found[path].tolist() == wanted[path].tolist()


def update_kernels() -> int:
    """Fused kernels of a compiled step that hold both Adam's square root and the guard's selection."""
    names = primitives_of(regression_step(mlp(), ema=[0.9]), batches(1)[0])
    return sum("Sqrt" in name and "Select" in name for name in names)


def test_a_leafs_whole_update_is_one_kernel(monkeypatch):
    assert update_kernels() == 6  # weights and biases of three layers
    monkeypatch.setattr(module, "guarded", selected)
    assert update_kernels() == 0
