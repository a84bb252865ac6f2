"""RestoreWizard, pictures of batches, and the test report, in real runs."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from runtime.errors import UsageError
from runtime.panels import Chart, Panel
from runtime.slots import snapshot
from tests.traces.small import estimator
from traces.io.batch_display import BatchDisplay, GridDisplay
from traces.io.csv_logger import CSVLogger
from traces.io.image_saver import ImageSaver, ImageViewer
from traces.io.logger import Logger
from traces.io.report import TestCase, TestReport
from traces.io.restore_wizard import RestoreWizard
from traces.trace import Trace
from visualizers.panels import as_pixels, save_display

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, time, runtime.blas
from pathlib import Path
from tests.traces.small import estimator
from traces.io.csv_logger import CSVLogger
from traces.io.logger import Logger
from traces.io.restore_wizard import RestoreWizard
from traces.trace import Trace
class Slow(Trace):
    def on_batch_end(self, data):
        if self.estimator.step == 5:
            print("begun", flush=True)
        time.sleep(float(sys.argv[2]))
folder = Path(sys.argv[1])
run = estimator([RestoreWizard(folder, "3s"), Logger(2), CSVLogger(folder / "log.csv"), Slow()], epochs=10)
run.fit()
"""


def weights(run):
    return {path: np.array(leaf) for path, leaf in snapshot(run.train_step.state).items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_array_equal(a[path], b[path], err_msg=path)


def test_the_wizard_goes_on_bit_for_bit_with_history(tmp_path, capsys):
    whole = estimator([Logger(2)], epochs=3)
    whole.fit()
    estimator([RestoreWizard(tmp_path), Logger(2)], epochs=2).fit()
    run = estimator([RestoreWizard(tmp_path), Logger(2)], epochs=3)
    run.fit()
    assert "going on from step_00000008" in capsys.readouterr().out
    assert_equal(weights(run), weights(whole))
    assert run.summary.history == whole.summary.history
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step_00000008.safetensors",
        "step_00000012.safetensors",
    ]


def test_the_wizard_falls_back_to_the_older_file_where_the_newest_is_damaged(tmp_path):
    whole = estimator([RestoreWizard(tmp_path)], epochs=2)
    whole.fit()
    newest = tmp_path / "step_00000008.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3])
    run = estimator([RestoreWizard(tmp_path)], epochs=2)
    run.fit()
    assert_equal(weights(run), weights(whole))


def test_a_script_killed_at_a_random_moment_goes_on(tmp_path):
    whole = estimator([Logger(2), CSVLogger(tmp_path / "whole.csv")], epochs=10)
    whole.fit()
    start = lambda pause: subprocess.Popen(  # noqa: E731
        [sys.executable, "-c", SCRIPT, tmp_path, pause], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    child = start("0.03")
    assert child.stdout is not None
    while "begun" not in child.stdout.readline():
        pass
    time.sleep(np.random.default_rng().uniform(0, 0.4))
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child = start("0")
    assert "going on from" in child.communicate(timeout=60)[0] and child.returncode == 0
    last = mx.load(str(tmp_path / "step_00000039.safetensors"))
    check = estimator([RestoreWizard(tmp_path)], epochs=10)
    check.fit()
    assert len(last) == len(weights(check))
    assert_equal(weights(check), weights(whole))
    one, other = (path.read_text().splitlines() for path in (tmp_path / "whole.csv", tmp_path / "log.csv"))
    assert one == other


def test_a_full_disk_is_said_and_the_training_goes_on(tmp_path, monkeypatch, capsys):
    def full(*rest):
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(mx, "save_safetensors", full)
    assert estimator([RestoreWizard(tmp_path)]).fit().steps == 8
    assert "could not save step 8 (No space left" in capsys.readouterr().out


def size(path):
    with Image.open(path) as picture:
        return picture.size


def test_batches_are_drawn_when_due(tmp_path):
    columns = [BatchDisplay(image="x"), BatchDisplay(text="label", title="truth"), BatchDisplay(masks="x")]
    traces = [
        BatchDisplay(image="x", frequency="4s", batch_limit=2, save_dir=tmp_path / "s", mode="train"),
        BatchDisplay(image="x", frequency="2e", batch_limit=1, save_dir=tmp_path / "e", mode="!train"),
        GridDisplay(columns, frequency="1e", batch_limit=2, save_dir=tmp_path / "g", mode="eval"),
    ]
    estimator(traces).fit()
    names = {folder: sorted(path.name for path in (tmp_path / folder).iterdir()) for folder in "seg"}
    assert names["s"] == ["x_train_0_4.png", "x_train_1_8.png"] or names["s"] == ["x_train_1_4.png", "x_train_2_8.png"]
    assert names["e"] == ["x_eval_2_2.png"]
    assert names["g"] == ["grid_eval_1_2.png", "grid_eval_2_2.png"]
    width, height = size(tmp_path / "g" / "grid_eval_1_2.png")
    assert width > 2.5 * size(tmp_path / "e" / "x_eval_2_2.png")[0]  # three columns


def test_every_part_of_a_panel_is_drawn(tmp_path):
    images = np.full((2, 8, 8, 3), 255, np.uint8)
    plain = np.asarray(Image.open(save_display(Panel(images=images), tmp_path / "plain.png")).convert("RGB"), int)
    masks = np.zeros((2, 8, 8, 2), np.float32)
    masks[:, :4, :, 1] = 1
    boxes = [[[1, 1, 3, 3, "cat"]], []]
    parts = {"masks": masks, "boxes": boxes, "keypoints": np.full((2, 1, 2), 4.0), "text": ["a", "b"],
             "heat": np.linspace(0, 1, 128).reshape(2, 8, 8)}  # fmt: skip
    for name, part in parts.items():
        path = save_display(Panel(images=images, **{name: part}), tmp_path / f"{name}.png")
        assert np.abs(np.asarray(Image.open(path).convert("RGB"), int) - plain).max() > 50, name
    with pytest.raises(UsageError, match="one number of samples"):
        save_display(Panel("odd", images=images, text=["a"]), tmp_path / "odd.png")
    assert save_display(Chart("c", {"a": ([1, 2], [0.1, 0.2], [0, 0.1], [0.2, 0.3])}), tmp_path / "c.png").exists()


def test_pixels_know_the_range_of_their_images():
    given = (
        np.array([[[0.0], [1.0]]]),
        np.array([[[-1.0], [1.0]]]),
        np.array([[[3.0], [7.0]]]),
        np.array([[[0], [255]]], np.uint8),
    )
    for image in given:
        assert as_pixels(image).reshape(-1).tolist() == [0, 255]
    assert as_pixels(np.array([[[-1.0], [0.0]]])).reshape(-1).tolist() == [0, 128]


class Painter(Trace):
    def on_epoch_end(self, data):
        data.write_without_log("picture", [Panel("p", images=np.zeros((1, 8, 8, 1)))])
        data.write_without_log("images", np.zeros((2, 8, 8, 3)))

    def on_end(self, data):
        data.write_without_log("curve", Chart("curve", {"a": ([1, 2], [0.1, 0.2])}))


def test_pictures_of_other_traces_are_saved_or_shown(tmp_path, capsys):
    keys = ["picture", "images", "curve"]
    traces = [Painter(outputs=keys, mode="eval"), ImageSaver(keys, tmp_path), ImageViewer(keys, mode="eval")]
    run = estimator(traces, epochs=1)
    run.fit()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "curve_train_epoch_1.png", "images_eval_epoch_1_elem_0.png", "images_eval_epoch_1_elem_1.png",
        "picture_eval_epoch_1.png",
    ]  # fmt: skip
    assert capsys.readouterr().out.count("picture: /") == 4


class Accuracy(Trace):
    def on_epoch_end(self, data):
        data.write_with_log("accuracy", 0.5)


def test_a_report_on_a_test(tmp_path):
    cases = [
        TestCase("accuracy is fair", lambda accuracy: accuracy > 0.4),
        TestCase("accuracy is high", lambda accuracy: accuracy > 0.9),
        TestCase("ids are small", lambda id: id < 4, aggregate=False, fail_threshold=1),
        TestCase("ids are | smaller", lambda id: id < 5, aggregate=False, fail_threshold=1),
    ]
    run = estimator([Accuracy(mode="test"), TestReport(cases, tmp_path, "My net", data_id="id")])
    for _ in range(2):  # the second test counts anew
        run.test()
    report = json.loads((tmp_path / "my_net_TestReport.json").read_text())
    assert [test["passed"] for test in report["tests"]] == [True, False, False, True]
    assert report["tests"][0]["inputs"] == {"accuracy": 0.5}
    third = report["tests"][2]
    assert (third["fail_number"], third["samples"], third["fail_id"]) == (2, 6, [4, 5])  # padding is no sample
    text = (tmp_path / "my_net_TestReport.md").read_text()
    assert "2 of 4 tests passed" in text and r"ids are \| smaller" in text and "ids 4, 5" in text
    assert not [path for path in tmp_path.iterdir() if "TestReport" not in path.name]


def test_criteria_must_give_bools(tmp_path):
    with pytest.raises(UsageError, match="must give a bool, got float"):
        estimator([Accuracy(mode="test"), TestReport(TestCase("x", lambda accuracy: accuracy), tmp_path, "t")]).test()
    with pytest.raises(UsageError, match=r"bool array \(B,\), got int32"):
        estimator([TestReport(TestCase("x", lambda id: id, aggregate=False), tmp_path, "t")]).test()
    with pytest.raises(UsageError, match="aggregate case"):
        TestCase("x", lambda a: True, fail_threshold=2)
