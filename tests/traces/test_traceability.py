"""The report of a run: what it holds, that it is whole and escaped HTML, and what a resume leaves in it."""

import json
import re
from html.parser import HTMLParser

import mlx.core as mx
import numpy as np
import pytest

import launcher
from dataloaders.ops.numpy_op import Batch, NumpyOp
from dataloaders.pipeline import Pipeline
from ops.model_op import ModelOp
from ops.sliced import Sliced
from runtime.description import settings, worded
from runtime.scheduler import EpochScheduler
from runtime.slicers import AxisSlicer
from scripts.compose import compose
from tests.traces.small import CrossEntropy, Net, Rows, estimator
from traces.io.graph import flow
from traces.io.logger import Logger
from traces.io.restore_wizard import RestoreWizard
from traces.io.traceability import Traceability
from traces.metrics.accuracy import Accuracy
from traces.trace import Trace
from visualizers.flowchart import flowchart, rows_of

VOID = {"meta", "br"}
EVIL = "<script>alert('$x_$')</script>"  # and no formula for whoever draws it


class Page(HTMLParser):
    """Tags must be closed in order; keeps tags, attributes that name resources, and text by section."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.sections, self.now = [], set(), [], {}, ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name.split(":")[-1] in ("src", "href", "action", "data")]
        if tag == "h2":
            self.now = dict(attrs)["id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> within {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.sections[self.now] = self.sections.get(self.now, "") + data + "\n"


def page(path):
    text = path.read_text("utf-8")
    found = Page(text)
    assert text.startswith("<!DOCTYPE html>") and not found.tags & {"script", "link", "img", "iframe", "metadata"}
    assert all(link.startswith("#") for link in found.links) and "url(http" not in text and "@import" not in text
    return found


class Named(Trace):
    """Logs under a hostile name."""

    def __init__(self, mode="eval"):
        super().__init__(inputs="y", outputs=EVIL, mode=mode)

    def on_epoch_end(self, data):
        data.write_with_log(EVIL, 0.5)


class Half(NumpyOp):
    def forward(self, data, state):
        return data / 2


def test_the_report_holds_the_run(tmp_path):
    run = estimator(
        [Accuracy(true_key="label", pred_key="y"), Named(), Logger(2), Traceability(tmp_path, Half("a", "b"))]
    )
    run.pipeline.add_ops([Half("x", "x"), Batch(), Half("x", EVIL, mode="!test"), lambda batch, rng: batch])
    run.fit(f"Small {EVIL}")
    run.test()
    (file,) = tmp_path.iterdir()
    assert file.name == "small_script_alert_x__script.html"
    found = page(file)
    sections = found.sections
    assert EVIL in sections[""] and EVIL in sections["graph"] and f"eval/{EVIL}" in sections["curves"]
    for name in ("train/ce", "eval/accuracy", "test/accuracy"):
        value = run.summary.series(name)[1][-1]
        assert re.search(rf"{name}\s+8\s+{value:.6g}\s", sections["curves"]), name
    assert "<lambda>" in sections["graph"]
    assert "svg" in found.tags and sections["graph"].count("CrossEntropy") >= 6
    assert re.search(r"train\n.*UpdateOp\(Net\).*eval\n.*test\n.*infer\n", sections["graph"], re.DOTALL)
    for text in ("epochs = 2", "average_loss = False", "log_steps = 2", "true_key = 'label'", "inputs = ('a',)"):
        assert text in sections["configuration"], text
    assert re.search(r"Rows: 32 samples, 3 classes.*x\s+float32\s+\(4, 4, 1\)", sections["data"], re.DOTALL)
    assert re.search(r"layer.weight\s+\(3, 16\)\s+float32\s+48\s+yes", sections["models"])
    assert "51 numbers" in sections["models"] and "SGD at 0.1 lowers ce" in sections["models"]
    environment = sections["environment"]
    assert "mlx\n" in environment and re.search(r"train\n.*\n0\n8\nfinished.*test\n.*\n8\n8\n", environment, re.DOTALL)
    assert re.search(r"git\n+[0-9a-f]{12}\+?\n", environment) and "python" in environment.split("command")[1]


def test_a_failed_run_leaves_a_report_and_a_restored_one_lists_both_sittings(tmp_path):
    class Fail(Trace):
        def on_batch_end(self, data):
            if self.estimator.step == 6:
                raise ZeroDivisionError

    def traces(*more):
        return [RestoreWizard(tmp_path / "state"), Logger(1), *more, Traceability(tmp_path / "report.html")]

    with pytest.raises(ZeroDivisionError):
        estimator(traces(Fail())).fit()
    assert re.search(r"end\s+failed\s+steps\s+6\s", page(tmp_path / "report.html").sections["result"])
    estimator(traces()).fit()
    sections = page(tmp_path / "report.html").sections
    assert re.search(r"steps\s+8\s", sections["result"])
    assert re.search(r"\n0\n4\n.*\n4\n8\nfinished\n", sections["environment"], re.DOTALL)
    curve = re.findall(r"train/ce\s+(\d+)", sections["curves"])
    assert curve == ["8"]


def test_a_report_that_can_not_be_written_does_not_end_the_run(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert estimator([Traceability(tmp_path / "file")]).fit().steps == 8
    assert "warning: the report could not be written to" in capsys.readouterr().out


def test_a_launchers_run_shows_its_config_and_all_its_curves_after_a_resume(tmp_path):
    common = [
        "run_name=t", "dataloaders.train_data.size=256", "dataloaders.eval_data.size=64", "batch_size=32", "device=cpu",
        "model.hidden=8", "model.depth=1", "trackio.enabled=false", "trackio.log_every=1", "evaluation=none",
        "traces.progress.quiet=true", "+traces.report._target_=traces.io.traceability.Traceability",
    ]  # fmt: skip
    for more in (["max_steps=3"], ["max_steps=6", "resume=true"]):
        launcher.train(compose([*common, *more]), tmp_path / "t")
    text = (tmp_path / "t" / "report.html").read_text("utf-8")
    sections = page(tmp_path / "t" / "report.html").sections
    assert "hidden: 8" in sections["configuration"] and "run_name: t" in sections["configuration"]
    assert "ObjectiveOp(MLP)" in sections["graph"] and "MeanFlow" not in text
    assert re.search(r"\n0\n3\n.*\n3\n6\n", sections["environment"], re.DOTALL)
    drawing = text[text.index("<svg") : text.index("</svg>")]
    assert drawing.count("train/loss") == 1
    points = max((path.count("L") for path in re.findall(r'd="([^"]*)" clip-path', drawing)), default=0)
    assert points == 5  # six steps of both sittings


def test_the_graph_follows_keys_modes_and_the_last_writer():
    pipeline = Pipeline(Rows(8), Rows(8), batch_size=4, ops=[Half("x", "z", mode="train"), Batch(), Half("x", "x")])
    run = estimator([Accuracy(true_key="label", pred_key="y")])
    run.pipeline = pipeline
    nodes = {mode: flow(run, mode) for mode in ("train", "eval", "infer")}
    names = [node.name for node in nodes["train"]]
    assert names == [
        "Rows",
        "Half",
        "Batch of 4",
        "Half",
        "ModelOp(Net)",
        "CrossEntropy",
        "CrossEntropy",
        "UpdateOp(Net)",
    ]
    assert nodes["train"][4].sources == [(3, "x")] and nodes["train"][5].sources == [(4, "y"), (2, "label")]
    assert [node.name for node in nodes["eval"]][-2:] == ["CrossEntropy", "Accuracy"]
    assert nodes["eval"][-1].sources == [(1, "label"), (3, "y")]
    assert [node.name for node in nodes["infer"]] == ["given", "Half", "ModelOp(Net)"]
    assert rows_of(nodes["train"]) == [[0], [1], [2], [3], [4], [5, 6], [7]]
    drawing = flowchart(nodes["train"], "train")
    assert drawing.count("<rect") == 8 and drawing.count("label</text>") == 2
    heights = [float(y) for y in re.findall(r'<rect x="[^"]*" y="([^"]*)"', drawing)]
    assert heights == sorted(heights) and len(set(heights)) == 7


def test_scheduled_and_nested_ops_are_shown_with_what_they_read_and_write():
    extra = [EpochScheduler({1: CrossEntropy(("y", "label"), "more", mode="train"), 3: None}),
             Sliced(ModelOp(Net(), "x", "part"), AxisSlicer(0, "x", "part"))]  # fmt: skip
    run = estimator(ops=extra)
    nodes = {node.name: node for node in flow(run, "train")}
    scheduled, sliced = nodes["EpochScheduler(1: CrossEntropy, 3: none)"], nodes["Sliced(ModelOp)"]
    assert [key for _, key in scheduled.sources] == ["y", "label"] and scheduled.outputs == ["more"]
    assert [key for _, key in sliced.sources] == ["x"] and sliced.outputs == ["part"]
    assert not any("Scheduler" in node.name for node in flow(run, "eval"))


@pytest.mark.parametrize(("value", "words"), [
    (0.1234567, "0.123457"), ("a", "'a'"), (mx.zeros((2, 3)), "float32 (2, 3)"), (np.float32(2), "2"),
    (np.zeros(3, np.uint8), "uint8 (3,)"), (Net(), "Net"), ((1,), "(1,)"), ([1, [2, [3, 4]]], "[1, [2, [2 entries]]]"),
    ({"a": None}, "{'a': None}"), (list(range(10)), "[0, 1, 2, 3, 4, 5, 6, 7, ... 2 more]"), (object(), "object"),
    ("x" * 200, "'" + "x" * 116 + "..."), (json.dumps, "json.dumps"),
])  # fmt: skip
def test_values_in_words(value, words):
    assert worded(value) == words


def test_settings_are_what_the_constructor_got():
    assert settings(Half("x", "z", mode="train")) == {
        "inputs": "('x',)", "outputs": "('z',)", "mode": "'train'", "ds_id": "None"
    }  # fmt: skip
    wizard = settings(RestoreWizard("there", "2e"))
    assert wizard["frequency"] == "'2e'" and wizard["folder"] == "there"  # under another name than its argument's
