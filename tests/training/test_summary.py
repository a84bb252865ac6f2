"""Steps an epoch, what is monitored, and the summary that keeps every row."""

import numpy as np
import pytest

from runtime.errors import UsageError
from scripts.run_estimator import main
from tests.traces.test_protocol import Told, estimator
from traces.io.logger import Logger
from training.summary import Experiment, History, Summary
from visualizers.logs import read_runs


def test_steps_of_an_epoch_and_of_its_evaluation_can_be_fixed():
    told = Told(["id"])
    trainer = estimator([told], epochs=2, train_steps_per_epoch=3, eval_steps_per_epoch=1)
    assert trainer.fit().steps == 6
    assert sum((mode, hook) == ("eval", "on_batch_end") for mode, hook, _ in told.heard) == 2
    with pytest.raises(UsageError, match="eval_steps_per_epoch must be a whole number, at least 1, or None, got 0"):
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


def test_the_history_is_rows_and_also_series_by_mode_and_key(tmp_path):
    summary = estimator([Logger(log_steps=2)], epochs=2, log_steps=2).fit("first")
    evaluated = summary.history["eval"]["loss"]
    assert evaluated == dict(zip(*summary.series("eval/loss"), strict=True)) and list(evaluated) == [2, 4]
    assert list(summary.history["train"]["loss"]) == [1, 2, 4] and summary.history["test"] == {}
    assert summary.history[-1]["eval/loss"] == evaluated[4] and len(summary.history) == 3
    rows = [{"step": 3, "perf/rate": 2.0, "epoch": 1, "test/f1|a": 0.5}]
    assert Summary(history=History(rows)).history.by_mode() == {
        "train": {"perf/rate": {3: 2.0}, "epoch": {3: 1}}, "test": {"f1|a": {3: 0.5}},
    }  # fmt: skip
    summary.save(tmp_path / "s.json")
    assert Summary.load(tmp_path / "s.json").history["eval"] == summary.history["eval"]


def runs():
    """Three summaries, of which one is shorter and one has a key of its own."""
    values = {"a_1": [0.5, 0.75], "a_2": [0.25, 0.5], "b": [1.0]}
    made = [Summary(name=name, history=History({"step": 2 * i + 2, "eval/f1": v} for i, v in enumerate(own)))
            for name, own in values.items()]  # fmt: skip
    made[2].history[0]["eval/only"] = 3
    return made


def test_an_experiment_keeps_summaries_by_name_through_one_file(tmp_path):
    experiment = Experiment("lr", runs()[:2])
    experiment.add(runs()[2])
    experiment.save(tmp_path / "lr.json")
    again = Experiment.load(tmp_path / "lr.json")
    assert again.name == "lr" and again.summaries == experiment.summaries
    assert list(again.summaries) == ["a_1", "a_2", "b"]
    assert again["b"].history["eval"]["only"] == {2: 3}
    with pytest.raises(UsageError, match="no summary 'c' in 'lr'; it has a_1, a_2, b"):
        again["c"]
    with pytest.raises(UsageError, match="'lr' has a summary 'b' already"):
        again.add(runs()[2])
    with pytest.raises(UsageError, match="needs a name"):
        again.add(Summary())
    runs()[0].save(tmp_path / "s.json")
    with pytest.raises(UsageError, match="is not an experiment that Experiment.save wrote"):
        Experiment.load(tmp_path / "s.json")


def test_an_experiment_averages_at_each_step_what_there_is():
    steps, means, spreads = Experiment("lr", runs()).average("eval/f1")
    assert steps == [2, 4] and means == [1.75 / 3, 0.625]
    deviation = np.std([0.5, 0.25, 1.0], ddof=1), np.std([0.75, 0.5], ddof=1)
    np.testing.assert_allclose(spreads, deviation, rtol=1e-12)
    assert Experiment("lr", runs()).average("eval/only") == ([2], [3.0], [0.0])
    with pytest.raises(UsageError, match="no summary of 'lr' has logged 'eval/f2'"):
        Experiment("lr", runs()).average("eval/f2")


def test_logs_show_the_summaries_of_an_experiment(tmp_path, capsys):
    Experiment("lr", runs()).save(tmp_path / "lr.json")
    runs()[0].save(tmp_path / "alone.json")
    found = read_runs([tmp_path])
    assert list(found) == ["alone", "lr/a_1", "lr/a_2", "lr/b"]
    for name, own in found.items():
        steps, values = own["eval/f1"]
        expected = {run.name: run for run in runs()}[name.split("/")[-1].replace("alone", "a_1")].series("eval/f1")
        assert (steps.tolist(), values.tolist()) == expected
    assert main(["logs", str(tmp_path / "lr.json"), "--group_by", "_n"]) == 0
    assert (tmp_path / "logs.png").stat().st_size > 1000 and "logs.png" in capsys.readouterr().out
