import mlx.core as mx
import numpy as np
import pytest

from ops.augment.boxes import Cutout
from ops.augment.color import ColorJitter
from ops.augment.mixing import CutMixBatch, MixUpBatch
from ops.augment.moving import RandomCrop, RandomFlip
from runtime.op import Context
from tests.ops.augment.by_hand import context, images

OPS = {
    "flip": RandomFlip("x", "x", vertical=0.5),
    "crop": RandomCrop(9, 7, "x", "x", padding=2),
    "reflect": RandomCrop(9, 7, "x", "x", padding=2, border="reflect"),
    "cutout": Cutout("x", "x", size=3, holes=2, prob=0.8),
    "color": ColorJitter("x", "x", hue=0.3, prob=0.9),
    "mixup": MixUpBatch(["x", "y"], ["x", "y"], alpha=0.3),
    "cutmix": CutMixBatch(["x", "y"], ["x", "y"], shared_box=False),
}


@pytest.mark.parametrize("name", OPS)
def test_compiled_once_and_equal(name):
    op, traced = OPS[name], []

    def run(x, y, key):
        traced.append(1)
        state = Context(mode="train", key=key, step=mx.array(0), epoch=mx.array(0))
        return {"x": x, "y": y, **op({"x": x, "y": y}, state)}

    compiled, y, outcomes = mx.compile(run), mx.eye(6), []
    for seed in range(3):
        x = images(seed=seed)
        found, plain = compiled(x, y, mx.random.key(seed)), op({"x": x, "y": y}, context(seed))
        assert all(np.allclose(found[key], plain[key], atol=1e-5) for key in plain)
        outcomes.append(np.array(op({"x": images(), "y": y}, context(seed))["x"]).tobytes())
    assert len(traced) == 1
    assert len(set(outcomes)) == 3  # the key decides
    assert np.array(op({"x": images(), "y": y}, context(1))["x"]).tobytes() == outcomes[1]


@pytest.mark.parametrize("name", OPS)
def test_gradients_flow(name):
    x, y, weight = images(count=3), mx.eye(3), images(count=3, seed=9)

    def out(x):
        return OPS[name]({"x": x, "y": y}, context(2))["x"]

    def loss(x):
        return (out(x) * weight).sum()

    gradient = np.array(mx.grad(loss)(x), np.float64)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0.1
    rng = np.random.default_rng(0)
    for _ in range(3):
        way = mx.array(rng.standard_normal(x.shape).astype(np.float32) * 2e-4)  # small: colours have kinks
        change = np.array(out(x + way), np.float64) - np.array(out(x - way), np.float64)
        change = (change * np.array(weight)).sum() / 2
        assert abs(change - (gradient * np.array(way)).sum()) < 0.03 * np.linalg.norm(gradient) * 2e-4
    grey = mx.full(x.shape, 0.5)
    assert np.isfinite(np.array(mx.grad(loss)(grey))).all()


@pytest.mark.parametrize("name", OPS)
def test_training_alone_is_augmented(name):
    assert OPS[name].mode == "train"


@pytest.mark.parametrize("name", OPS)
def test_half_precision_stays(name):
    x = images().astype(mx.bfloat16)
    assert OPS[name]({"x": x, "y": mx.eye(6)}, context())["x"].dtype == mx.bfloat16
