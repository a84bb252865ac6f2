"""Traces that print or write numbers: Logger, ProgressLogger, Timer, CSVLogger, TensorBoard, in real runs."""

import csv
import re

import numpy as np
import pytest
from mlx.utils import tree_flatten

from dataloaders.pipeline import Pipeline
from runtime.errors import UsageError
from tests.traces.small import Rows, estimator
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
    far = ["Eval Progress"] * 2
    assert heads == ["Start0", "Train1", "Train3", "Train4", *far, "Eval4", "Train6", "Train8", *far, "Eval8",
                     "Finish8", "Test8"]  # fmt: skip
    assert re.fullmatch(r"Eval Progress: 1/2; steps/sec: [\d.e+]+;", printed[4]) and "Progress: 2/2;" in printed[5]
    printed = [text for text in printed if not text.startswith("Eval Progress")]
    steps = [text for text in printed if text.startswith("Train: step: 3;")]
    assert re.search(r"ce: [\d.]+; learning_rate: 0.1; steps/sec: [\d.]+;$", steps[0])
    assert "accuracy: 0.25;" in printed[4] and "ce: " in printed[4] and "each: " not in printed[1]
    assert "steps/sec" not in printed[1]  # after one step there is none
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


def heads(capsys):
    """The lines' heads with their places, and what was printed of the evaluation's progress."""
    lines = [text for text in capsys.readouterr().out.splitlines() if not text.startswith("warning")]
    return [re.sub(r"(: step|; ).*", "", text) for text in lines]


@pytest.mark.parametrize(
    ("trace", "log_steps", "eval_log_steps", "expected"),
    [
        (None, 2, (), ["Start", *["Train"] * 3, "Train", *(f"Eval Progress: {i}/10" for i in (1, 3, 6, 10)), "Eval"]),
        (None, 2, (2, 5), ["Start", *["Train"] * 3, "Train", "Eval Progress: 2/10", "Eval Progress: 5/10", "Eval"]),
        (None, 0, (), ["Start", "Train", "Eval"]),
        (None, 0, [7], ["Start", "Train", "Eval Progress: 7/10", "Eval"]),
        (None, None, (1,), []),
        (4, None, (), ["Start", "Train", "Train", "Train", *(f"Eval Progress: {i}/10" for i in (1, 3, 6, 10)), "Eval"]),
    ],
)
def test_the_estimator_says_how_often_its_logger_prints(trace, log_steps, eval_log_steps, expected, capsys):
    run = estimator([Logger(trace)], epochs=1, held=80, log_steps=log_steps, eval_log_steps=eval_log_steps)
    run.fit()
    assert heads(capsys) == ([*expected, "Finish"] if expected else [])
    assert len([row for row in run.summary.history if "train/ce" in row]) == expected.count("Train") - bool(expected)


def test_without_a_logger_nothing_is_printed_and_each_data_set_has_its_own_progress(capsys):
    run = estimator(Logger(), epochs=1, eval_steps_per_epoch=2)
    run.pipeline = Pipeline(Rows(32), {"a": Rows(40), "b": Rows(8)}, None, 8)
    run.fit()
    progress = [head for head in heads(capsys) if head.startswith("Eval P")]
    assert progress == ["Eval Progress (a): 1/2", "Eval Progress (a): 2/2", "Eval Progress (b): 1/1"]
    estimator([None], epochs=1, log_steps=1).fit()
    assert heads(capsys) == []


def test_wrong_steps_are_refused():
    with pytest.raises(UsageError, match="log_steps must be a whole number, at least 0, or None, got -1"):
        estimator([], log_steps=-1)
    with pytest.raises(UsageError, match=r"eval_log_steps must be batch numbers from 1, got \[0, 3\]"):
        estimator([], eval_log_steps=[0, 3])
