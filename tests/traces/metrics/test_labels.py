"""Metrics of labels against scikit-learn, over several batches and a short last one, integer and one-hot alike."""

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference

from runtime.errors import UsageError
from tests.traces.metrics.by_batches import measured, one_hot
from tests.traces.test_protocol import estimator
from traces.metrics.accuracy import Accuracy
from traces.metrics.auc import AUCScore
from traces.metrics.confusion_matrix import ConfusionMatrix
from traces.metrics.precision_recall import MCC, F1Score, Precision, Recall

RATIOS = [
    (Precision, reference.precision_score), (Recall, reference.recall_score), (F1Score, reference.f1_score),
]  # fmt: skip


def drawn(classes, rows=53, seed=0):
    """True labels, scores (rows, classes) that lean to them, and the labels predicted."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, rows)
    scores = rng.random((rows, classes)).astype(np.float32) + 0.4 * one_hot(true, classes)
    scores /= scores.sum(1, keepdims=True)
    return true, scores, scores.argmax(1)


def binary(rows=53, seed=1):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 2, rows)
    return true, np.clip(rng.normal(0.3 + 0.4 * true, 0.3), 0, 1).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("encode", [lambda t: t, lambda t: t[:, None], lambda t: one_hot(t, 5)])
def test_several_classes(seed, encode):
    true, scores, found = drawn(5, seed=seed)
    got = measured(Accuracy("y", "p"), encode(true), scores)["accuracy"]
    assert got == pytest.approx(reference.accuracy_score(true, found), rel=1e-12)
    got = measured(MCC("y", "p"), encode(true), scores)["mcc"]
    assert got == pytest.approx(reference.matthews_corrcoef(true, found), rel=1e-12)
    matrix = measured(ConfusionMatrix("y", "p", 5), encode(true), scores)["confusion_matrix"]
    np.testing.assert_array_equal(matrix, reference.confusion_matrix(true, found))
    for make, expected in RATIOS:
        name = make.default_name
        each = measured(make("y", "p"), encode(true), scores)[name]
        np.testing.assert_allclose(each, expected(true, found, average=None), rtol=1e-12)
        for average in ("micro", "macro", "weighted"):
            one = measured(make("y", "p", average=average), encode(true), scores)[name]
            assert one == pytest.approx(expected(true, found, average=average), rel=1e-12)


@pytest.mark.parametrize("normalize", ["true", "pred", "all"])
def test_a_normalized_confusion_matrix_is_one_of_all_batches(normalize):
    true, scores, found = drawn(6, rows=20)
    got = measured(ConfusionMatrix("y", "p", 7, normalize=normalize), true, scores)["confusion_matrix"]
    expected = reference.confusion_matrix(true, found, labels=range(7), normalize=normalize)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_two_classes_by_one_score(shape):
    true, score = binary()
    found = score > 0.5
    for y in (true.reshape(shape), one_hot(true, 2)):
        p = score.reshape(shape)
        assert measured(Accuracy("y", "p"), y, p)["accuracy"] == pytest.approx((true == found).mean())
        logits = np.log((p + 1e-6) / (1 - p + 1e-6))
        assert measured(Accuracy("y", "p", from_logits=True), y, logits)["accuracy"] == pytest.approx(
            (true == found).mean()
        )
        assert measured(MCC("y", "p"), y, p)["mcc"] == pytest.approx(reference.matthews_corrcoef(true, found))
        for make, expected in RATIOS:
            assert measured(make("y", "p"), y, p)[make.default_name] == pytest.approx(expected(true, found), rel=1e-12)


def test_where_there_is_nothing_to_divide_by():
    true, scores = np.array([0, 0, 1, 2]), one_hot(np.array([0, 0, 0, 2]), 3)
    found = scores.argmax(1)
    for zero in (0.0, 1.0):
        for make, expected in RATIOS:
            got = measured(make("y", "p", zero_division=zero), true, scores)[make.default_name]
            np.testing.assert_allclose(got, expected(true, found, average=None, zero_division=zero))
    assert measured(MCC("y", "p"), np.zeros(4, int), scores)["mcc"] == 0.0
    assert measured(Recall("y", "p"), np.zeros(9, int), np.zeros(9, np.float32))["recall"] == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_area_of_two_classes(seed):
    true, score = binary(seed=seed)
    for scores in (score, np.round(score, 1)):  # without and with ties
        for y, p in ((true, scores), (true[:, None], scores[:, None]), (true, np.stack([1 - scores, scores], 1))):
            assert measured(AUCScore("y", "p"), y, p)["auc"] == pytest.approx(
                reference.roc_auc_score(true, scores), rel=1e-9
            )
        for limit in (0.05, 0.3, 0.9, 1.0):
            got = measured(AUCScore("y", "p", max_fpr=limit), true, scores)["auc"]
            assert got == pytest.approx(reference.roc_auc_score(true, scores, max_fpr=limit), rel=1e-6)
        weights = np.random.default_rng(seed).random(len(true))
        got = measured(AUCScore("y", "p", sample_weight=list(weights)), true, scores)["auc"]
        assert got == pytest.approx(reference.roc_auc_score(true, scores, sample_weight=weights), rel=1e-9)


def test_area_of_several_classes_and_of_several_labels():
    true, scores, _ = drawn(4)
    for kind in ("ovr", "ovo"):
        for average in ("macro", "weighted"):
            got = measured(AUCScore("y", "p", multi_class=kind, average=average), true, scores)["auc"]
            expected = reference.roc_auc_score(true, scores, multi_class=kind, average=average)
            assert got == pytest.approx(expected, rel=1e-9)
    several = (np.random.default_rng(2).random((53, 4)) < 0.4).astype(np.int32)
    several[:, 0], several[:, 1] = 1 - several[:, 3], several[:, 2]
    averages: tuple[Any, ...] = ("micro", "macro", "weighted", None)
    for average in averages:
        for y in (several, one_hot(true, 4)):
            got = measured(AUCScore("y", "p", average=average), y, scores)["auc"]
            np.testing.assert_allclose(got, reference.roc_auc_score(y, scores, average=average), rtol=1e-9)
    y = one_hot(true, 4)
    got = measured(AUCScore("y", "p", average="samples"), y, scores)["auc"]
    assert got == pytest.approx(reference.roc_auc_score(y, scores, average="samples"), rel=1e-9)


def test_each_data_set_has_its_own_value_too():
    true, scores, found = drawn(3, rows=24)
    got = measured(Accuracy("y", "p"), true, scores, ds_ids=["a", "b", "a", "a"])
    inside = np.r_[0:7, 23:24]
    right = true == found
    assert got["accuracy|a"] == pytest.approx(right[inside].mean())
    assert got["accuracy|b"] == pytest.approx(right[7:23].mean())
    assert got["accuracy"] == pytest.approx(right.mean())
    alone = measured(Accuracy("y", "p", per_ds=False), true, scores, ds_ids=["a", "b", "a", "a"])
    assert set(alone) == {"accuracy"}


def test_in_an_evaluation_with_a_short_last_batch():
    trainer = estimator([Accuracy("id", "id", output_name="same"), MCC("id", "id")], epochs=2)
    trainer.fit()
    assert [row["eval/same"] for row in trainer.summary.history if "eval/same" in row] == [1.0, 1.0]
    assert "train/same" not in trainer.summary.latest


@pytest.mark.parametrize(("make", "match"), [
    (lambda: measured(Accuracy("y", "p"), np.zeros(4, int), np.zeros((4, 2, 3))), r"\(4,\) and \(4, 2, 3\)"),
    (lambda: measured(AUCScore("y", "p"), np.zeros(4, int), np.zeros(4)), "both classes"),
    (lambda: measured(AUCScore("y", "p"), np.arange(3), np.full((3, 3), 1 / 3)), "multi_class"),
    (lambda: measured(AUCScore("y", "p", multi_class="ovr"), np.arange(3), np.eye(3) * 2), "sum to 1"),
    (lambda: AUCScore("y", "p", max_fpr=2.0), "max_fpr"), (lambda: F1Score("y", "p", average="samples"), "average"),
    (lambda: ConfusionMatrix("y", "p", 3, normalize="rows"), "normalize"),
])  # fmt: skip
def test_what_can_not_be_measured_is_refused(make, match):
    with pytest.raises(UsageError, match=match):
        make()
