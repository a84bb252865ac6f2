"""scripts/compare_runs.py on folders of runs made by hand: every number in the tables is one that was put there."""

import json
from pathlib import Path

import pytest
from PIL import Image

import launcher
from scripts import compare_runs
from scripts.compose import compose
from visualizers import logs

CONFIG = """
run_name: {name}
seed: 0
model: {{hidden: 64, act: gelu}}
optimizer: {{learning_rate: {rate}}}
network: {{ops: [{{_target_: A, p: {p}}}, {{_target_: B}}]}}
loss: {{conditions: {conditions}}}
"""
NAN = float("nan")


def made(folder, losses, rate=0.1, p=1, conditions="[]", more="", metrics=()):
    """A run's folder with a loss each ten steps, and other metrics at the last step."""
    folder.mkdir(parents=True)
    text = CONFIG.format(name=folder.name, rate=rate, p=p, conditions=conditions) + more
    (folder / "config.yaml").write_text(text)
    rows = [{"step": 10 * n, "time": 5.0 + n, "loss": loss} for n, loss in enumerate(losses, 1)]
    rows[-1] |= dict(metrics)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def pair(tmp_path):
    a = made(tmp_path / "a", [3.0, 0.5, NAN, 2.0], metrics={"eval/accuracy": 0.25})
    b = made(tmp_path / "b", [4.0, 1.0], rate=0.2, p=2, conditions="[label]", more="extra: null\n")
    return a, b


def tables(capsys):
    """The printed blocks as rows of words."""
    blocks = capsys.readouterr().out.strip().split("\n\n")
    return [[line.split() for line in block.splitlines()] for block in blocks]


def call(*arguments):
    return compare_runs.main([str(one) for one in arguments])


def test_the_keys_that_differ_and_no_others(pair, capsys):
    assert call(*pair) == 0
    assert tables(capsys)[0] == [
        ["config", "a", "b"],
        ["extra", "(none)", "None"],
        ["loss.conditions", "[]", "['label']"],
        ["network.ops.0.p", "1", "2"],
        ["optimizer.learning_rate", "0.1", "0.2"],
    ]


def test_the_types_of_values_count_and_equal_configs_are_told(tmp_path, capsys):
    assert call(made(tmp_path / "a", [1.0], rate=1), made(tmp_path / "b", [1.0], rate=1.0)) == 0
    assert tables(capsys)[0][1] == ["optimizer.learning_rate", "1", "1.0"]
    assert call(tmp_path / "a", made(tmp_path / "c", [1.0], rate=1)) == 0
    assert "The configs are the same." in capsys.readouterr().out


def test_a_resumed_run_is_compared_by_its_last_sitting(pair, capsys):
    a, b = pair
    for number, rate in ((2, 0.7), (9, 0.8), (10, 0.2)):
        (a / f"resume-{number}.yaml").write_text(CONFIG.format(name="a", rate=rate, p=1, conditions="[]"))
    assert call(a, b) == 0
    assert "optimizer.learning_rate" not in capsys.readouterr().out


def test_last_lowest_and_highest_with_their_steps(pair, capsys):
    assert call(*pair) == 0
    assert tables(capsys)[1] == [
        ["metric", "run", "last", "step", "lowest", "step", "highest", "step"],
        ["eval/accuracy", "a", "0.25", "40", "0.25", "40", "0.25", "40"],
        ["eval/accuracy", "b", "(none)"],
        ["loss", "a", "2", "40", "0.5", "20", "3", "10"],
        ["loss", "b", "1", "20", "1", "20", "4", "10"],
    ]
    assert call(*pair, "metric=eval/*") == 0
    assert [row[:2] for row in tables(capsys)[1][1:]] == [["eval/accuracy", "a"], ["eval/accuracy", "b"]]


def test_runs_of_one_name_are_told_apart_by_the_folders_above(tmp_path, capsys):
    folders = [made(tmp_path / f"{above}/same", [1.0], rate=rate) for above, rate in (("x", 1), ("y", 2))]
    assert call(*folders) == 0
    config, metrics = tables(capsys)
    assert config[0] == ["config", "x/same", "y/same"] and [row[1] for row in metrics[1:]] == ["x/same", "y/same"]


def test_the_picture_has_a_panel_for_each_metric_and_a_line_for_each_run(pair, tmp_path, monkeypatch, capsys):
    drawn, save = [], logs.save_figure
    monkeypatch.setattr(logs, "save_figure", lambda figure, path: drawn.append(figure) or save(figure, path))
    out = tmp_path / "deep/both.png"
    assert call(*pair, "metric=loss", f"out={out}") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    assert min(Image.open(out).size) > 300
    (axis,) = drawn[0].axes
    first, second = axis.lines
    assert axis.get_ylabel() == "loss" and [first.get_label(), second.get_label()] == ["a", "b"]
    assert list(first.get_xdata()) == [10, 20, 30, 40] and list(second.get_ydata()) == [4.0, 1.0]
    assert call(*pair, f"out={out}", "log=true") == 0
    assert [axis.get_yscale() for axis in (axis, *drawn[1].axes)] == ["linear", "log", "log"]


def test_runs_of_the_launcher(tmp_path, monkeypatch, capsys):
    for name, rate in (("a", 0.01), ("b", 0.02)):
        overrides = [
            f"run_name={name}", f"optimizer.learning_rate={rate}", "epochs=null", "max_steps=2", "eval_every=null",
            "save_every=null", "evaluation=none", "device=cpu", "compile=false", "batch_size=8", "model.hidden=8",
            "model.depth=1", "trackio.enabled=false", "trackio.log_every=1", "traces.progress.quiet=true",
        ]  # fmt: skip
        launcher.train(compose(overrides), tmp_path / name, overrides)
    monkeypatch.chdir(tmp_path / "a")
    capsys.readouterr()
    assert call(".", "../b") == 0
    config, metrics = tables(capsys)
    assert config == [["config", "a", "b"], ["optimizer.learning_rate", "0.01", "0.02"]]
    last = json.loads((tmp_path / "b/metrics.jsonl").read_text().splitlines()[-1])
    name = next(key for key in last if key.endswith("loss"))
    assert [row[2] for row in metrics if row[:2] == [name, "b"]] == [f"{last[name]:.6g}"]


@pytest.mark.parametrize(("arguments", "said"), [
    (["a"], "two or more"),
    (["a", "a/../a"], "different runs"),
    (["a", "b", "a"], "different runs"),
    (["a", "none"], "no config at"),
    (["a", "b", "metric=lose"], "nearest: loss"),
    (["a", "b", "out=x.txt"], "x.txt"),
    (["a", "b", "smoothing=1"], "below 1"),
    (["a", "b", "metrics=loss"], "nearest: metric"),
])  # fmt: skip
def test_mistakes_are_told(pair, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(pair[0].parent)
    assert call(*arguments) == 2
    assert said in capsys.readouterr().err and sorted(path.name for path in Path.cwd().iterdir()) == ["a", "b"]


def test_a_run_without_metrics_is_told(pair, capsys):
    (pair[1] / "metrics.jsonl").unlink()
    assert call(*pair) == 2
    assert f"no metrics file {pair[1]}" in capsys.readouterr().err
