"""What counts as better, alike for all traces that keep a best."""

import json
import math

import mlx.nn as nn
import pytest

from runtime.errors import UsageError
from traces.adapt.early_stopping import EarlyStopping
from traces.adapt.reduce_lr_on_plateau import ReduceLROnPlateau
from traces.best import Best
from traces.io.model_saver import BestModelSaver
from traces.io.record import CheckpointSaver
from training.data import Data

MODEL = nn.Linear(1, 1)
BAD = (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize(("compare", "values", "better"), [
    ("min", (3, 3, 2.95, 2.8, 4, 2.6), (1, 0, 0, 1, 0, 1)), ("max", (3, 3, 3.05, 3.2, 1, 3.4), (1, 0, 0, 1, 0, 1)),
])  # fmt: skip
def test_better_is_beyond_the_best_by_more_than_min_delta(compare, values, better):
    best = Best(compare, min_delta=0.1)
    waits, wait = [], 0
    for flag in better:
        wait = 0 if flag else wait + 1
        waits.append(wait)
    assert [(best.improved(value), best.wait) for value in values] == list(zip(map(bool, better), waits, strict=True))


@pytest.mark.parametrize("compare", ["min", "max"])
@pytest.mark.parametrize("bad", BAD)
def test_what_is_not_finite_is_never_better_nor_kept(compare, bad):
    best = Best(compare)
    assert not best.improved(bad) and not best.found
    assert best.improved(1.0) and not best.improved(bad) and (best.value, best.wait) == (1.0, 1)


def test_a_baseline_is_to_be_beaten_and_the_state_comes_back():
    best = Best("min", baseline=1.0)
    assert not best.improved(1.0) and best.improved(0.5) and not best.improved(0.7)
    for one in (best, Best("max")):
        other = Best("min" if one is best else "max")
        other.load_state_dict(json.loads(json.dumps(one.state_dict())))
        assert (other.value, other.wait) == (one.value, one.wait)


@pytest.mark.parametrize(("make", "argument"), [
    (lambda how: EarlyStopping(compare=how), "compare"),
    (lambda how: ReduceLROnPlateau(MODEL, best_mode=how), "best_mode"),
    (lambda how: BestModelSaver(MODEL, None, save_best_mode=how), "save_best_mode"),
])  # fmt: skip
def test_all_traces_of_a_best_have_the_one_counter(make, argument):
    assert isinstance(make("max").best, Best) and make("max").best.sign == -1
    with pytest.raises(UsageError, match=f'{argument} must be "min" or "max", got \'most\''):
        make("most")


def test_a_saver_without_a_finite_value_says_what_it_saw():
    saver = BestModelSaver(MODEL, None, "m")
    data = Data({"m": math.nan}, "eval")
    saver.on_epoch_end(data)
    assert data["since_best_m"] == 1 and math.isnan(data["min_m"])


def test_checkpoints_are_not_ranked_by_what_is_not_finite():
    saver = CheckpointSaver(keep_best=1)
    ranked = [saver._rank(f"step_{i}", value) for i, value in enumerate((math.nan, 3.0, -math.inf, 2.0, math.nan))]
    assert ranked == [False, True, False, True, False] and saver.best == [[2.0, "step_3"]]
