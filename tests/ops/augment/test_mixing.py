from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from scipy import stats

from ops.augment.beta import beta_draws
from ops.augment.mixing import CutMixBatch, MixUpBatch
from runtime.errors import UsageError
from tests.ops.augment.by_hand import context, images

KEYS = ["x", "y"]


def one_hot(count: int, classes: int = 4) -> mx.array:
    return mx.array(np.eye(classes, dtype=np.float32)[np.arange(count) % classes])


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.7, 1.0, 1.5, 8.0])
def test_draws_are_beta(alpha):
    drawn = np.array(beta_draws(alpha, (20000,), mx.random.key(3)), np.float64)
    assert drawn.min() >= 0 and drawn.max() <= 1
    # float32 has no number between 1 - 6e-8 and 1: compare the lower half and, mirrored, the upper one
    folded = np.minimum(drawn, 1 - drawn)
    assert abs((drawn < 0.5).mean() - 0.5) < 0.015
    low = np.maximum(folded, 1e-7)
    expected = stats.beta(alpha, alpha)
    for x in (1e-4, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.45):
        assert abs((low < x).mean() - 2 * expected.cdf(x)) < 0.014, (alpha, x)
    assert abs(drawn.std() - expected.std()) < 0.005


@pytest.mark.parametrize("shared", [False, True])
def test_mixup_by_hand(shared):
    x, y, op = images(6), one_hot(6), MixUpBatch(KEYS, ["a", "b"], alpha=0.4, shared_beta=shared)
    part = np.broadcast_to(np.array(op.draw(x.shape, mx.random.key(0))["part"]), 6)
    assert (part >= 0.5).all() and (len(set(part.tolist())) == 1) == shared
    out = op({"x": x, "y": y}, context())
    for i in range(6):
        assert np.allclose(out["a"][i], part[i] * np.array(x[i]) + (1 - part[i]) * np.array(x[i - 1]), atol=1e-6)
        assert np.allclose(out["b"][i], part[i] * np.array(y[i]) + (1 - part[i]) * np.array(y[i - 1]), atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixups_mean_part(alpha):
    part = MixUpBatch(KEYS, KEYS, alpha=alpha).draw((40000, 1), mx.random.key(1))["part"]
    grid = (np.arange(200000) + 0.5) / 200000
    folded = stats.beta(alpha, alpha).ppf(grid)
    assert abs(float(part.mean()) - np.maximum(folded, 1 - folded).mean()) < 0.004


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_cutmix_by_hand(shared, seed):
    x, y, op = images(5, 12, 10), one_hot(5), CutMixBatch(KEYS, ["a", "b"], shared_box=shared)
    drawn = {k: np.broadcast_to(np.array(v), 5) for k, v in op.draw(x.shape, mx.random.key(seed)).items()}
    out = op({"x": x, "y": y}, context(seed))
    for i in range(5):
        top, bottom, left, right = (int(drawn[name][i]) for name in ("top", "bottom", "left", "right"))
        expected = np.array(x[i])
        expected[top:bottom, left:right] = np.array(x[i - 1])[top:bottom, left:right]
        assert np.array_equal(out["a"][i], expected)
        taken = (np.array(out["a"][i]) != np.array(x[i])).all(-1).mean()  # random images differ everywhere
        assert np.allclose(out["b"][i], (1 - taken) * np.array(y[i]) + taken * np.array(y[i - 1]), atol=1e-6)


def test_cutmix_boxes_have_their_ratio_and_place():
    shape = (30000, 200, 100, 1)
    drawn = {k: np.array(v) for k, v in CutMixBatch(KEYS, KEYS, shared_box=False).draw(shape, mx.random.key(2)).items()}
    height, width = drawn["bottom"] - drawn["top"], drawn["right"] - drawn["left"]
    assert (drawn["top"] >= 0).all() and (drawn["bottom"] <= 200).all() and (drawn["right"] <= 100).all()
    whole = (drawn["top"] > 0) & (drawn["bottom"] < 200) & (drawn["left"] > 0) & (drawn["right"] < 100)
    assert np.abs(height[whole] - 2 * width[whole]).max() <= 3  # the image's proportions, edges rounded
    assert (drawn["part"] >= 0.5 - 0.02).all()
    down, across = (drawn["top"] + drawn["bottom"]) / 400, (drawn["left"] + drawn["right"]) / 200
    inner: Any = stats.ks_2samp(down[whole], across[whole])
    assert inner.pvalue > 1e-3
    rng = np.random.default_rng(0)
    half, centre = np.sqrt(1 - np.maximum(lam := rng.random(200000), 1 - lam)) / 2, rng.random((2, 200000))
    sides = np.minimum(centre + half, 1) - np.maximum(centre - half, 0)
    assert abs(drawn["part"].mean() - (1 - sides.prod(0).mean())) < 0.004


@pytest.mark.parametrize("make", [MixUpBatch, CutMixBatch])
def test_integer_labels_become_one_hot(make):
    x, y = images(6), one_hot(6)
    integers = mx.array(np.arange(6) % 4)
    expected = make(KEYS, KEYS)({"x": x, "y": y}, context())
    for labels in (integers, integers[:, None]):
        found = make(KEYS, KEYS, num_classes=4)({"x": x, "y": labels}, context())
        assert all(np.array_equal(found[k], expected[k]) for k in KEYS)
    assert np.array_equal(make(KEYS, KEYS)({"x": x, "y": y.astype(mx.int32)}, context())["y"], expected["y"])
    with pytest.raises(UsageError, match="num_classes"):
        make(KEYS, KEYS)({"x": x, "y": integers}, context())


def test_errors_name_values():
    with pytest.raises(UsageError, match="alpha must be above 0, got 0"):
        MixUpBatch(KEYS, KEYS, alpha=0)
    with pytest.raises(UsageError, match=r"two inputs.*\['x'\]"):
        CutMixBatch("x", "x")
    with pytest.raises(UsageError, match="uint8"):
        MixUpBatch(KEYS, KEYS)({"x": images().astype(mx.uint8), "y": one_hot(6)}, context())
    with pytest.raises(UsageError, match=r"\(6, 4\)"):
        CutMixBatch(KEYS, KEYS)({"x": one_hot(6), "y": one_hot(6)}, context())
