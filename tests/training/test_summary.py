"""Steps an epoch, what is monitored, and the summary that keeps every row."""

import pytest

from runtime.errors import UsageError
from tests.traces.test_protocol import Told, estimator
from training.summary import Summary


def test_steps_of_an_epoch_and_of_its_evaluation_can_be_fixed():
    told = Told(["id"])
    trainer = estimator([told], epochs=2, train_steps_per_epoch=3, eval_steps_per_epoch=1)
    assert trainer.fit().steps == 6
    assert sum((mode, hook) == ("eval", "on_batch_end") for mode, hook, _ in told.heard) == 2
    with pytest.raises(UsageError, match="eval_steps_per_epoch must be at least 1 or None, got 0"):
        estimator([], eval_steps_per_epoch=0)


def test_a_summary_keeps_every_row_through_a_file(tmp_path):
    trainer = estimator([], epochs=3)
    summary = trainer.fit("first")
    steps, losses = summary.series("eval/loss")
    assert steps == [2, 4, 6] and losses[-1] == summary.latest["eval/loss"] and summary.name == "first"
    assert trainer.test() is summary and "test/loss" in summary.latest
    summary.save(tmp_path / "s.json")
    assert Summary.load(tmp_path / "s.json") == summary
    with pytest.raises(UsageError, match="'eval/f1' was never logged; this summary has eval/loss"):
        summary.series("eval/f1")
    (tmp_path / "s.json").write_text("[1]")
    with pytest.raises(UsageError, match="is not a summary"):
        Summary.load(tmp_path / "s.json")


def test_monitored_keys_are_averaged_and_an_absent_one_is_named():
    assert "eval/id" in estimator([], epochs=1, monitor_names="id").fit().latest
    with pytest.raises(UsageError, match="no op computes accuracy"):
        estimator([], monitor_names=["accuracy"]).fit()
