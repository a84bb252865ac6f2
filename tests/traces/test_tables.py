"""Traces that print or write numbers: Logger, ProgressLogger, Timer, CSVLogger, TensorBoard, in real runs."""

import csv
import re

import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.traces.small import estimator
from traces.io.csv_logger import CSVLogger
from traces.io.logger import Logger, ProgressLogger, Timer, line
from traces.io.tensorboard import TensorBoard, histogram
from traces.trace import Trace


class Late(Trace):
    """Logs a key that exists from the second epoch on, and says how often it ran."""

    def __init__(self, mode="eval"):
        super().__init__(mode=mode)
        self.modes = []

    def on_epoch_end(self, data):
        self.modes.append(data.mode)
        data.write_with_log("accuracy", 0.25 * self.estimator.epoch)
        if self.estimator.epoch > 1:
            data.write_with_log("late", float(self.estimator.epoch))


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_logger_prints_steps_epochs_and_the_metrics_of_traces_behind_it(capsys):
    run = estimator([Logger(log_steps=3), Late()])
    run.fit(warmup=False)
    run.test()
    printed = capsys.readouterr().out.splitlines()
    heads = [text.split(":")[0] + (m[1] if (m := re.search(r" step: (\d+);", text)) else "") for text in printed]
    assert heads == ["Start0", "Train1", "Train3", "Train4", "Eval4", "Train6", "Train8", "Eval8", "Finish8", "Test8"]
    steps = [text for text in printed if text.startswith("Train: step: 3;")]
    assert re.search(r"ce: [\d.]+; learning_rate: 0.1; steps/sec: [\d.]+;$", steps[0])
    assert "accuracy: 0.25;" in printed[4] and "ce: " in printed[4] and "each: " not in printed[1]
    assert "late: 2.0" not in printed[4] and "late: 2;" in printed[7] and "ce: " in printed[-1]
    history = {row["step"]: row for row in run.summary.history}
    assert {1, 3, 4, 6, 8} == set(history) and "train/ce" in history[3] and "train/ce" not in history[4]


def test_a_line_puts_arrays_below_it():
    assert line("Eval", {"a": 0.123456789, "m": np.eye(2)}) == "Eval: a: 0.123457;\nm:\n[[1.,0.],\n [0.,1.]];"


def test_progress_and_timer(capsys):
    timer, seen = Timer(), []

    class Reader(Trace):
        def on_epoch_end(self, data):
            seen.append((data.mode, data["epoch_time(sec)"]))

    estimator([ProgressLogger(every=0), timer, Reader()]).fit()
    printed = capsys.readouterr().out
    assert printed.count("Progress: step") == 8 and "Progress: step 8/8 (100.0%)" in printed
    assert [mode for mode, _ in seen] == ["train", "eval"] * 2 and all(spent > 0 for _, spent in seen)
    assert timer.seconds["train"] == pytest.approx(sum(spent for mode, spent in seen if mode == "train"))
    assert "Timer: train: " in printed


def test_the_tables_header_grows_and_no_row_is_lost(tmp_path):
    path = tmp_path / "log.csv"
    run = estimator([Logger(log_steps=2), CSVLogger(path), Late()])
    run.fit()
    rows = rows_of(path)
    assert [(row["mode"], row["step"]) for row in rows] == [
        ("train", "1"), ("train", "2"), ("train", "4"), ("eval", "4"), ("train", "6"), ("train", "8"), ("eval", "8"),
    ]  # fmt: skip
    assert [row["late"] for row in rows] == [""] * 6 + ["2.0"]
    assert [row["accuracy"] for row in rows] == ["", "", "", "0.25", "", "", "0.5"]
    assert all(row["ce"] for row in rows)
    run.test()
    assert [row["mode"] for row in rows_of(path)] == [row["mode"] for row in rows] + ["test"]
    estimator([CSVLogger(path)], epochs=1).fit()
    assert [row["mode"] for row in rows_of(path)] == ["eval"]  # a new training, a new file


def test_the_table_obeys_mode_and_names(tmp_path):
    traces = [Logger(2), CSVLogger(tmp_path / "a", mode="!train"), CSVLogger(tmp_path / "b", "accuracy"), Late()]
    estimator(traces).fit()
    assert [row["mode"] for row in rows_of(tmp_path / "a")] == ["eval", "eval"]
    assert list(rows_of(tmp_path / "b")[0]) == ["mode", "step", "epoch", "accuracy"]


def test_a_row_a_sample_where_ids_are_given(tmp_path):
    estimator([CSVLogger(tmp_path / "log.csv", ["*", "each"], "id", mode="eval")], epochs=1).fit()
    rows = rows_of(tmp_path / "log.csv")
    own = {int(row["instance_id"]): float(row["each"]) for row in rows if row["instance_id"]}
    (whole,) = (float(row["ce"]) for row in rows if not row["instance_id"])
    assert sorted(own) == list(range(10))  # padding is no row
    assert np.mean(list(own.values())) == pytest.approx(whole, rel=1e-5)


def test_a_resumed_table_drops_later_rows_and_goes_on(tmp_path):
    path = tmp_path / "log.csv"
    whole = estimator([Logger(1), CSVLogger(path)])
    whole.fit()
    want = [(row["mode"], row["step"]) for row in rows_of(path)]
    text = path.read_text()
    path.write_text(text[: text.rindex("\n", 0, len(text) - 2) + 5])  # a kill cut the last line
    run = estimator([Logger(1), CSVLogger(path)])
    run.step = 4
    run.fit()
    assert [(row["mode"], row["step"]) for row in rows_of(path)] == want


def test_tensorboard_is_read_back(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = TensorBoard(tmp_path, "2s", write_images="x", weight_histogram_freq="1e", max_images=2)
    run = estimator([board, Late()])
    run.fit()
    events = {}
    for mode in ("train", "eval"):
        events[mode] = reader.EventAccumulator(str(tmp_path / mode))
        events[mode].Reload()
    assert [event.step for event in events["train"].Scalars("ce")] == [2, 4, 6, 8]
    assert [event.value for event in events["eval"].Scalars("accuracy")] == [0.25, 0.5]
    assert events["eval"].Scalars("ce")[1].value == pytest.approx(run.summary.latest["eval/ce"])
    images = events["train"].Images("x/1")
    assert [event.step for event in images] == [2, 4, 6, 8] and images[0].encoded_image_string[1:4] == b"PNG"
    assert [event.step for event in events["eval"].Images("x/0")] == [4, 8]
    weights = np.array(dict(tree_flatten(run.network.models["model"].parameters()))["layer.weight"])
    last = events["train"].Histograms("model/layer.weight")[-1].histogram_value
    assert (last.num, last.max) == (weights.size, pytest.approx(weights.max())) and sum(last.bucket) == weights.size
    nodes = {node.op: list(node.input) for node in events["train"].Graph().node}
    assert nodes.keys() >= {"Rows", "Batch of 8", "ModelOp", "CrossEntropy", "UpdateOp", "TensorBoard"}
    assert nodes["ModelOp"] == ["1_Batch_of_8"] and nodes["CrossEntropy"] == ["2_ModelOp_Net_", "1_Batch_of_8"]


def test_a_resumed_board_hides_what_was_written_after_the_checkpoint(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    estimator([TensorBoard(tmp_path, 1)]).fit()
    again = estimator([TensorBoard(tmp_path, 1)])
    again.step = 4
    again.fit()
    events = reader.EventAccumulator(str(tmp_path / "train"))
    events.Reload()
    assert [event.step for event in events.Scalars("ce")] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_histograms_leave_out_what_is_not_finite():
    found = histogram(np.array([0.0, 1.0, np.nan, np.inf]))
    assert (found["num"], found["sum"], sum(found["bucket"])) == (2, 1.0, 2)
