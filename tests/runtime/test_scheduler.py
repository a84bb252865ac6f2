"""Values by epoch, with FastEstimator's documented examples."""

import pytest

from runtime.errors import UsageError
from runtime.scheduler import EpochScheduler, RepeatScheduler


def test_an_epoch_scheduler_holds_a_value_until_the_next():
    scheduler = EpochScheduler({3: "b", 1: "a", 4: None, 100: "c"})
    assert [scheduler.get_current_value(e) for e in (1, 2, 3, 4, 99, 100)] == ["a", "a", "b", None, None, "c"]
    assert EpochScheduler({2: "a"}).get_current_value(1) is None
    assert set(scheduler.get_all_values()) == {"a", "b", None, "c"}


def test_a_repeat_scheduler_goes_round():
    assert [RepeatScheduler(["a", None, "c"]).get_current_value(e) for e in (1, 2, 3, 4, 5)] == [
        "a",
        None,
        "c",
        "a",
        None,
    ]


@pytest.mark.parametrize(
    "make", [lambda: EpochScheduler({0: 1}), lambda: EpochScheduler({}), lambda: RepeatScheduler([1])]
)
def test_what_makes_no_schedule_is_refused(make):
    with pytest.raises(UsageError, match="needs"):
        make()
