"""Calibration against numbers of the package `uncertainty-calibration` 0.1.4, and against what calibrated means."""

import numpy as np
import pytest

from runtime.errors import UsageError
from tests.traces.metrics.by_batches import measured, one_hot
from traces.adapt.pbm_calibrator import Calibrator, PBMCalibrator, logistic
from traces.metrics.calibration import CalibrationError, calibration_error
from training.data import Data


def drawn(rows=200, classes=4):
    rng = np.random.default_rng(3)
    true = rng.integers(0, classes, rows)
    odds = np.exp(rng.normal(size=(rows, classes)) * 1.2 + 2 * np.eye(classes)[true])
    return true, odds / odds.sum(1, keepdims=True)


@pytest.mark.parametrize(("method", "smooth", "repeated"), [
    ("marginal", 0.04995810468655938, 0.04144153213028422), ("top-label", 0.1240055609574045, 0.1003005607039162),
])  # fmt: skip
def test_the_error_is_that_of_the_authors_package(method, smooth, repeated):
    true, prob = drawn()
    for encode in (lambda t: t, lambda t: one_hot(t, 4)):
        got = measured(CalibrationError("y", "p", method=method), encode(true), prob)["calibration_error"]
        assert got == pytest.approx(smooth, rel=1e-5)
    assert calibration_error(true, np.round(prob, 1), method) == pytest.approx(repeated, rel=1e-9)


def test_two_classes_and_an_interval():
    rng = np.random.default_rng(0)
    prob = rng.random(4000)
    true = (rng.random(4000) < prob**2).astype(int)
    got = measured(CalibrationError("y", "p", confidence_interval=90), true, prob[:, None].astype(np.float32))
    error = np.sqrt(np.mean((prob - prob**2) ** 2))  # what the bins estimate, slightly from below
    assert got["calibration_error"] == pytest.approx(error, rel=0.1)
    assert got["calibration_error_low"] < got["calibration_error"] < got["calibration_error_high"]
    assert got["calibration_error_high"] - got["calibration_error_low"] < 0.04
    honest = (rng.random(4000) < prob).astype(int)
    assert measured(CalibrationError("y", "p"), honest, prob)["calibration_error"] < 0.03


def test_the_calibrator_is_the_authors():
    true, prob = drawn()
    got = Calibrator.fitted(true, prob)(prob)
    expected = [
        [0.21818687718498123, 0.1983832963542113, 0.061039692404975435, 0.38639171809678097],
        [0.9584391366685641, 0.031566402277554785, 0.15646937106521958, 0.002531667010790388],
        [0.7279071048681838, 0.031566402277554785, 0.061039692404975435, 0.0363719559097349],
    ]
    np.testing.assert_allclose(got[:3], expected, rtol=1e-3)  # their solver stops early
    assert (got**2).sum() == pytest.approx(131.01894157855355, rel=1e-4)


def test_a_logistic_curve_is_found_where_it_is_and_where_classes_part():
    rng = np.random.default_rng(1)
    x = rng.normal(size=20000)
    hit = rng.random(20000) < 1 / (1 + np.exp(-(1.5 * x - 0.5)))
    slope, offset = logistic(x, hit)
    assert (slope, offset) == pytest.approx((1.5, -0.5), abs=0.06)
    excess = 1 / (1 + np.exp(-(slope * x + offset))) - hit
    assert abs(excess.sum()) < 1e-6 and abs(excess @ x) < 1e-6
    slope, _ = logistic(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 0, 1, 1]))
    assert np.isfinite(slope) and slope > 5


def test_the_trace_writes_calibrated_rows_and_saves_when_it_should(tmp_path):
    true, prob = drawn(rows=41)
    path = tmp_path / "sub" / "calibrator.json"
    trace = PBMCalibrator("y", "p", save_path=path, save_if_key="since_best")
    for since, saved in ((1, False), (0, True)):
        data = Data({"since_best": since}, "eval")
        trace.on_epoch_begin(data)
        for rows in (slice(0, 32), slice(32, 41)):
            trace.on_batch_end(Data({"y": true[rows], "p": prob[rows]}, "eval"))
        trace.on_epoch_end(data)
        assert path.exists() == saved
    np.testing.assert_allclose(data["p_calibrated"], Calibrator.fitted(true, prob)(prob))
    np.testing.assert_array_equal(Calibrator.load(path)(prob), data["p_calibrated"])
    with pytest.raises(UsageError, match="4 classes"):
        Calibrator.load(path)(prob[:, :3])
    with pytest.raises(UsageError, match="save_path"):
        PBMCalibrator("y", "p", save_if_key="since_best")
