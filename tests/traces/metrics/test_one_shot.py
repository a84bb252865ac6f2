"""One-shot accuracy counted by hand, in batches that cut trials."""

import numpy as np
import pytest

from runtime.errors import UsageError
from traces.metrics.one_shot import OneShotAccuracy


def test_right_trials_over_all_whatever_the_batches():
    true = np.array([0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0])
    pred = np.array([0.2, 0.9, 0.1, 0.3, 0.5, 0.4, 0.0, 0.1, 0.2, 0.7, 0.6, 0.9])  # right, wrong, right, wrong
    metric = OneShotAccuracy("y", "p", ways=3)
    assert metric.value([metric.gather(true, pred)]) == 0.5
    parts = [(true[:5], pred[:5, None]), (true[5:6], pred[5:6, None]), (true[6:], pred[6:, None])]
    assert metric.value([metric.gather(*part) for part in parts]) == 0.5
    logits = np.log(pred + 1e-9)
    assert metric.value([metric.gather(true, logits)]) == 0.5


@pytest.mark.parametrize("true", [[1, 0, 0, 1], [1, 1, 0], [0, 0, 0]], ids=str)
def test_cut_trials_and_wrong_matches_are_refused(true):
    metric = OneShotAccuracy("y", "p", ways=3)
    with pytest.raises(UsageError, match=f"3 rows with one match each, got {len(true)} rows"):
        metric.value([metric.gather(np.array(true), np.zeros(len(true)))])
