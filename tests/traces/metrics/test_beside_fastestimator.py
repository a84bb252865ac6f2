"""Metric traces beside FastEstimator's on the same batches, the last one short, and where ours differ on purpose."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.traces.metrics.by_batches import measured
from traces.metrics.accuracy import Accuracy
from traces.metrics.auc import AUCScore
from traces.metrics.bleu import BleuScore
from traces.metrics.calibration import CalibrationError
from traces.metrics.confusion_matrix import ConfusionMatrix
from traces.metrics.dice import Dice
from traces.metrics.mean_average_precision import MeanAveragePrecision
from traces.metrics.precision_recall import MCC, F1Score, Precision, Recall

FIXTURE = json.loads(Path(__file__).with_name("fixtures_metrics.json").read_text())
GIVEN = {name: np.array(value).reshape(FIXTURE["shapes"][name]) for name, value in FIXTURE["inputs"].items()}
CASES, DIFFERS = FIXTURE["cases"], FIXTURE["differs"]
ROUNDED = {BleuScore: 5e-6, CalibrationError: 5e-5}  # theirs rounds to 5 and to 4 digits
METRICS: dict[str, Any] = {
    metric.__name__: metric
    for metric in (Accuracy, AUCScore, BleuScore, CalibrationError, ConfusionMatrix, Dice, F1Score, MCC,
                   MeanAveragePrecision, Precision, Recall)
}  # fmt: skip


def inputs(*names):
    return [GIVEN[n].astype(np.float32) if GIVEN[n].dtype == np.float64 else GIVEN[n].astype(np.int32) for n in names]


@pytest.mark.parametrize("case", CASES, ids=[f"{c['metric']} {c['options']} {c['inputs']}" for c in CASES])
def test_the_value_over_batches_is_fastestimators(case):
    metric = METRICS[case["metric"]]
    options = {k: {int(a): b for a, b in v.items()} if isinstance(v, dict) else v for k, v in case["options"].items()}
    true, pred = inputs(*case["inputs"])
    assert len(true) > sum(case["sizes"]) and len(true) % case["sizes"][0]  # a last batch, a short one
    found = measured(metric(true_key="y", pred_key="p", **options), true, pred, case["sizes"])
    for name, wanted in case["value"].items():
        if case["options"].get("include_std"):  # theirs: mean - std, mean, mean + std
            low, wanted, _ = wanted
            assert found[f"{name}_std"] == pytest.approx(wanted - low, abs=2e-6)
        tolerance = ROUNDED.get(metric, 0)
        np.testing.assert_allclose(found[name], wanted, rtol=2e-6 if not tolerance else 0, atol=max(tolerance, 1e-9))


def test_every_metric_of_fastestimators_is_compared():
    assert {case["metric"] for case in CASES} == set(METRICS)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_predictions_in_lower_precision_are_measured_as_they_are(name):
    case = next(c for c in CASES if c["metric"] == name and not c["options"].get("from_logits"))
    options = {k: v for k, v in case["options"].items() if k in ("num_classes", "n_gram")}
    true, pred = inputs(*case["inputs"])
    if case["inputs"][1] == "said":  # tokens: as the largest of bf16 scores
        pred = np.eye(7, dtype=np.float32)[pred.astype(np.int32)]
    low = mx.array(pred).astype(mx.bfloat16)
    if name == "AUCScore":
        options, true, low = {}, GIVEN["labels"], mx.array(GIVEN["score"].astype(np.float32)).astype(mx.bfloat16)
    metric = METRICS[name](true_key="y", pred_key="p", **options)
    wanted = measured(metric, true, np.array(low.astype(mx.float32)), case["sizes"])
    found = measured(metric, true, low, case["sizes"])
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value)


# Where ours differs on purpose: the name says how, the fixture has what FastEstimator gives.


def test_scores_of_one_class_are_binary_where_fastestimator_asks_the_last_batch_how_long_it_is():
    true, pred = inputs("labels", "score")
    each, last = (DIFFERS[f"precision of scores (B,){rest}"] for rest in ("", ", last batch of one row"))
    assert len(each) == 2 and each[1] == last
    for sizes in ((8, 8), (8, 14)):
        assert measured(Precision("y", "p"), true, pred, sizes)["precision"] == pytest.approx(last, rel=1e-6)


def test_a_normalized_confusion_matrix_has_rows_of_sum_1_where_fastestimator_adds_up_its_batches():
    true, pred = inputs("true", "scores")
    found = measured(ConfusionMatrix("y", "p", 4, normalize="true"), true, pred, (8, 8))["confusion_matrix"]
    np.testing.assert_allclose(np.sum(found, axis=1), 1)
    assert np.max(np.sum(DIFFERS["confusion matrix by rows"], axis=1)) == pytest.approx(3)  # batches


def test_bleu_reads_the_keys_it_is_given_where_fastestimator_reads_fixed_ones():
    assert DIFFERS["bleu of other keys"] == "KeyError"
    (wanted,) = (c["value"]["bleu_score"] for c in CASES if c["options"] == {"n_gram": 4})
    found = measured(BleuScore("words", "said"), *inputs("tokens", "said"), sizes=(4, 4))["bleu_score"]
    assert found == pytest.approx(wanted, abs=5e-6)


def test_an_image_without_a_true_box_only_adds_false_alarms_where_fastestimator_raises():
    assert DIFFERS["mAP where an image has no true box"] == "KeyError"
    true, pred = inputs("boxes", "found")
    empty, quiet = true.copy(), pred.copy()
    empty[3] = quiet[3] = 0
    alarmed = measured(MeanAveragePrecision(3, "y", "p"), empty, pred, (4, 4))
    calm = measured(MeanAveragePrecision(3, "y", "p"), empty, quiet, (4, 4))
    assert 0 < alarmed["AP50"] < calm["AP50"]
