"""Losses against float64 NumPy formulas: both kinds of targets, masks, extreme logits, gradients."""

import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from scipy.special import lambertw as exact_w

from ops.losses.cross_entropy import CrossEntropy
from ops.losses.dice import DiceLoss
from ops.losses.focal import FocalLoss
from ops.losses.hinge import Hinge
from ops.losses.lambert import lambertw
from ops.losses.metric_learning import CenterLoss, ContrastiveLoss, CosineSimilarityLoss, TripletLoss
from ops.losses.regression import L1Loss, MeanSquaredError
from ops.losses.regularization import L2Regularization
from ops.losses.super_loss import SuperLoss
from runtime.errors import UsageError
from runtime.op import Context
from tests.training.by_hand import KEY, mlp, weights

ZERO = mx.array(0, mx.int32)
NAMES = ("p", "t")
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)).astype(np.float32)
CLASSES = RNG.integers(0, 4, 6)
HOT = np.eye(4)[CLASSES]
REAL = RNG.normal(size=(6, 4)).astype(np.float32)


def rows(op, *data, mode="train", **more):
    op.average_loss = False
    given = dict(zip(op.inputs, map(mx.array, data), strict=True))
    return np.array(op({**given, **more}, Context(mode, KEY, ZERO, ZERO))[op.outputs[0]])


def log_softmax(z):
    z = z.astype(np.float64)
    return z - np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True)) - z.max(-1, keepdims=True)


def binary(z, y):
    z = z.astype(np.float64)
    return np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))


def focal(z, y, gamma=2.0, alpha=0.25):
    p = 1 / (1 + np.exp(-z.astype(np.float64)))
    p_t = p * y + (1 - p) * (1 - y)
    return (-(alpha * y + (1 - alpha) * (1 - y)) * (1 - p_t) ** gamma * np.log(p_t)).sum(1)


def huber(d, beta):
    d = np.abs(d.astype(np.float64))
    return np.where(d < beta, d**2 / 2, beta * (d - beta / 2)).mean(1)


def cosine(a, b):
    return 1 - (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


CASES = {
    "entropy": (CrossEntropy(NAMES, "l", from_logits=True), lambda z, y: -(y * log_softmax(z)).sum(1)),
    "smoothed": (
        CrossEntropy(NAMES, "l", from_logits=True, label_smoothing=0.2),
        lambda z, y: -((0.8 * y + 0.05) * log_softmax(z)).sum(1),
    ),
    "weighted": (
        CrossEntropy(NAMES, "l", from_logits=True, class_weights={0: 2.0, 2: 0.5}),
        lambda z, y: -(y * log_softmax(z)).sum(1) * np.array([2, 1, 0.5, 1])[y.argmax(1)],
    ),
    "focal": (FocalLoss(NAMES, "l", from_logits=True), focal),
    "hinge": (Hinge(NAMES, "l"), lambda z, y: np.maximum(0, 1 - (2 * y - 1) * z).mean(1)),
    "squares": (MeanSquaredError(NAMES, "l"), lambda z, y: ((z - y) ** 2).mean(1)),
    "l1": (L1Loss(NAMES, "l"), lambda z, y: np.abs(z - y).mean(1)),
    "huber": (L1Loss(NAMES, "l", loss_type="Huber", beta=0.5), lambda z, y: huber(z - y, 0.5)),
    "smooth": (L1Loss(NAMES, "l", loss_type="Smooth", beta=0.5), lambda z, y: huber(z - y, 0.5) / 0.5),
    "dice": (DiceLoss(NAMES, "l"), lambda z, y: -(2 * z * y / (z + y + 1e-6)).mean(1)),
    "cosine": (CosineSimilarityLoss(NAMES, "l"), cosine),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_equal_the_formula_for_class_numbers_and_one_hot_rows(name):
    op, formula = CASES[name]
    z = np.abs(LOGITS) if name == "dice" else LOGITS
    wanted = formula(z, HOT)
    for targets in (CLASSES, CLASSES[:, None], HOT.astype(np.float32)):
        np.testing.assert_allclose(rows(op, z, targets), wanted, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_finite_differences_of_the_formula(name):
    op, formula = CASES[name]
    z = (np.abs(LOGITS) if name == "dice" else LOGITS).astype(np.float64)
    op.average_loss = True

    def loss(p):
        return op({"p": p, "t": mx.array(CLASSES)}, Context("train", KEY, ZERO, ZERO))["l"]

    found, step = np.array(mx.grad(loss)(mx.array(z.astype(np.float32)))), 1e-6
    for i in range(4):
        move = np.zeros_like(z)
        move[i, i] = step
        slope = (formula(z + move, HOT).mean() - formula(z - move, HOT).mean()) / (2 * step)
        assert found[i, i] == pytest.approx(slope, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    "op",
    [
        CrossEntropy(NAMES, "l", from_logits=True),
        FocalLoss(NAMES, "l", 0.5, from_logits=True),
        CrossEntropy(NAMES, "l", from_logits=True, form="binary"),
    ],
)
def test_huge_logits_give_finite_losses_and_gradients(op):
    def loss(p):
        return op({"p": p, "t": mx.array(HOT[:2])}, Context("train", KEY, ZERO, ZERO))["l"]

    value, slope = mx.value_and_grad(loss)(mx.array([[1e4, -1e4, 0, 0], [-1e4, 1e4, 1e4, -1e4]]))
    assert bool(mx.isfinite(value)) and bool(mx.isfinite(slope).all())


def test_binary_forms_and_probabilities():
    z, y = LOGITS[:, :1], CLASSES % 2
    op = CrossEntropy(NAMES, "l", from_logits=True)
    wanted = binary(z, y[:, None])[:, 0]
    for targets in (y, y[:, None], np.eye(2)[y].astype(np.float32)):
        np.testing.assert_allclose(rows(op, z, targets), wanted, rtol=1e-5)
        np.testing.assert_allclose(rows(CrossEntropy(NAMES, "l"), 1 / (1 + np.exp(-z)), targets), wanted, rtol=1e-5)
    probabilities = np.exp(log_softmax(LOGITS)).astype(np.float32)
    np.testing.assert_allclose(
        rows(CrossEntropy(NAMES, "l"), probabilities, CLASSES), rows(op, LOGITS, CLASSES), rtol=1e-5
    )


def test_places_of_a_row_are_averaged_and_wrong_labels_are_not_hidden():
    z, y = RNG.normal(size=(2, 3, 5)).astype(np.float32), RNG.integers(0, 5, (2, 3))
    op = CrossEntropy(NAMES, "l", from_logits=True)
    np.testing.assert_allclose(rows(op, z, y), -(np.eye(5)[y] * log_softmax(z)).sum(-1).mean(1), rtol=1e-5)
    assert np.isnan(rows(op, LOGITS, np.array([0, 1, 4, -1, 0, 0.5], np.float32))).tolist() == [0, 0, 1, 1, 0, 1]
    with pytest.raises(UsageError, match=r"\(3,\) don't fit predictions of shape \(6, 4\)"):
        rows(MeanSquaredError(NAMES, "l"), LOGITS, CLASSES[:3])


def test_dice_of_images_keeps_channels_and_masks_rows():
    p, y = RNG.uniform(size=(3, 4, 4, 2)).astype(np.float32), RNG.integers(0, 2, (3, 4, 4))
    hot = np.eye(2)[y]
    soft = 2 * (p * hot).sum((1, 2)) / ((p**2).sum((1, 2)) + hot.sum((1, 2)))
    op = DiceLoss(NAMES, "l", soft_dice=True, channel_weights={1: 3.0})
    np.testing.assert_allclose(rows(op, p, y), -(soft * [1, 3]).mean(1), rtol=1e-5)
    op = DiceLoss(NAMES, "l", soft_dice=True, channel_average=False)
    data = {"p": mx.array(p), "t": mx.array(y), "mask": mx.array([1.0, 1.0, 0.0])}
    np.testing.assert_allclose(op(data, Context("eval", KEY, ZERO, ZERO))["l"], -soft[:2].mean(0), rtol=1e-5)


def test_focal_sum_normalised_and_unreduced():
    two = HOT + np.roll(HOT, 1, 1)
    shared = {"inputs": NAMES, "outputs": "l", "from_logits": True}
    np.testing.assert_allclose(rows(FocalLoss(**shared), LOGITS, two), focal(LOGITS, two) / 2, rtol=1e-5)
    op = FocalLoss(**shared, sample_reduction="sum", normalize=False)
    data = {"p": mx.array(LOGITS), "t": mx.array(two), "mask": mx.array([1.0] * 5 + [0.0])}
    total = float(op(data, Context("eval", KEY, ZERO, ZERO))["l"])
    assert total == pytest.approx(focal(LOGITS, two)[:5].sum(), rel=1e-5)
    plain = FocalLoss(**shared, sample_reduction="none", shape_reduction="none", normalize=False)
    np.testing.assert_allclose(rows(plain, LOGITS, two).sum(1), focal(LOGITS, two), rtol=1e-5)


def test_lambert_w_against_scipy_also_at_the_branch_point():
    z = np.concatenate(
        [-1 / math.e + np.geomspace(1e-7, 0.3, 60), np.linspace(-0.1, 20, 60), np.geomspace(20, 1e30, 40)]
    )
    z = np.maximum(z.astype(np.float32), np.float32(-0.36787942))
    wanted = exact_w(np.maximum(z.astype(np.float64), -1 / math.e)).real
    for function in (lambertw, mx.compile(lambertw)):
        np.testing.assert_allclose(function(mx.array(z)), wanted, rtol=3e-6, atol=3e-6)
    assert float(lambertw(mx.array(-1.0))) == pytest.approx(-1, abs=1e-3)


def test_super_loss_is_the_least_over_confidences_and_its_slope_is_the_confidence():
    losses = mx.array([0.0, 0.3, 1.0, 1.5, 4.0])
    op = SuperLoss(MeanSquaredError(("p", "t"), "l"), 1.0, 0.7, average_loss=False, output_confidence="c")

    def run(x):
        return op({"p": mx.sqrt(x + 1e-20), "t": mx.zeros(5)}, Context("train", KEY, ZERO, ZERO))

    found, s = np.array(run(losses)["l"]), np.array(run(losses)["c"])
    grid = np.exp(np.linspace(-3, 1, 40001))[:, None]  # ln s at -2/e or below is 1: the paper's bound
    values = (np.array(losses) - 1) * grid + 0.7 * np.log(grid) ** 2
    np.testing.assert_allclose(found, values.min(0), atol=1e-5)
    np.testing.assert_allclose(s, grid[values.argmin(0), 0], rtol=2e-3)
    slope = mx.grad(lambda x: run(x)["l"].sum())(losses + 0.01)
    np.testing.assert_allclose(slope, run(losses + 0.01)["c"], rtol=1e-4)


def test_super_loss_threshold_follows_training_only():
    op = SuperLoss(MeanSquaredError(NAMES, "l"))
    for value, mode, tau in ((2.0, "eval", 0), (1.0, "train", 1.0), (3.0, "eval", 1.0), (2.0, "train", 1.3)):
        op({"p": mx.full((3, 1), value), "t": mx.zeros((3, 1))}, Context(mode, KEY, ZERO, ZERO))
        assert float(op.state["tau"]) == pytest.approx(tau)


def test_distances():
    a, b, c = RNG.normal(size=(3, 5, 3)).astype(np.float32)
    ab, ac, y = np.linalg.norm(a - b, axis=1), np.linalg.norm(a - c, axis=1), np.array([0, 1, 1, 0, 1])
    np.testing.assert_allclose(
        rows(TripletLoss(tuple("abc"), "l"), a, b, c), np.maximum(ab - ac + 1, 0), rtol=1e-5, atol=1e-6
    )
    wanted = (y * ab**2 + (1 - y) * np.maximum(1.5 - ab, 0) ** 2) / 2
    for targets in (y, y[:, None], np.eye(2)[y]):
        np.testing.assert_allclose(
            rows(ContrastiveLoss(tuple("abt"), "l", margin=1.5), a, b, targets.astype(np.float32)), wanted, rtol=1e-5
        )
        np.testing.assert_allclose(
            rows(ContrastiveLoss(tuple("dt"), "l", margin=1.5), ab, targets.astype(np.float32)), wanted, rtol=1e-5
        )
    slope = mx.grad(
        lambda x: TripletLoss(tuple("abc"), "l")({"a": x, "b": x, "c": x}, Context("train", KEY, ZERO, ZERO))["l"]
    )
    assert bool(mx.isfinite(slope(mx.array(a))).all())


def test_centers_move_as_in_the_paper_in_training_only():
    x = REAL[:, :3]
    for targets in (CLASSES, HOT.astype(np.float32)):
        op = CenterLoss(NAMES, "l", classes=4, features=3)
        np.testing.assert_allclose(rows(op, x, targets, mode="eval"), (x**2).sum(1) / 2, rtol=1e-5)
        assert not np.array(op.state["centers"]).any()
        rows(op, x, targets)
        wanted = np.stack([0.5 * x[CLASSES == j].sum(0) / (1 + (CLASSES == j).sum()) for j in range(4)])
        np.testing.assert_allclose(op.state["centers"], wanted, rtol=1e-5)


def test_l2_adds_half_the_squares_and_pulls_each_weight_to_zero():
    model = mlp()
    op = L2Regularization("l", "m", model, beta=0.3)
    leaves: Any = model.trainable_parameters()

    def total(leaves):
        model.update(leaves)
        return op({"l": mx.array(2.0)}, Context("train", KEY, ZERO, ZERO))["m"]

    value, slope = mx.value_and_grad(total)(leaves)
    model.update(leaves)
    assert float(value) == pytest.approx(2 + 0.15 * sum((w**2).sum() for w in weights(model).values()), rel=1e-5)
    first = slope["layers"][0]["weight"]
    np.testing.assert_allclose(first, 0.3 * leaves["layers"][0]["weight"], rtol=1e-5)
