"""The command line over a file's get_estimator: arguments, results, records, comparisons, history."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UsageError
from scripts import run_estimator, run_history
from scripts.hyperparameters import arguments_for
from tests.visualizers.test_search import searched, stored
from visualizers.logs import chosen, compare_runs, find_runs, group_names, mean_and_spread, read_run

ROOT = Path(__file__).parents[2]
FILE = '''
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from dataloaders.pipeline import Pipeline
from dataloaders.source import ArraySource
from ops.loss_op import LossOp
from ops.model_op import ModelOp
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp

class Squares(LossOp):
    def per_sample(self, data, state):
        return ((data[0] - data[1]) ** 2).mean(-1)

def get_estimator(epochs: int = 2, batch_size=16, rate: float = 0.1, broken: bool = False):
    """A line is fitted."""
    if broken:
        raise RuntimeError("broken it is\\nreally")
    x = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    data = {"x": x, "y": x @ np.float32([[1], [2], [3]])}
    parts = {f"{mode}_data": ArraySource(data) for mode in ("train", "eval", "test")}
    model = nn.Linear(3, 1)
    update = UpdateOp(model=model, loss_name="loss", optimizer=optim.SGD, learning_rate=rate)
    network = Network([ModelOp(model, "x", "out"), Squares(("out", "y"), "loss"), update])
    return Estimator(Pipeline(**parts, batch_size=batch_size), network, epochs=epochs)
'''


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("line.py").write_text(FILE)


def test_train_takes_typed_arguments_and_keeps_what_it_measured(tmp_path, capsys):
    assert run_estimator.main(["train", "line.py", "--epochs", "3", "--rate=2e-1", "--summary", "a"]) == 0
    out = capsys.readouterr().out
    rows = [json.loads(line) for line in Path("outputs/a/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "eval/loss" in row] == [4, 8, 12]
    end = json.loads(Path("outputs/a/summary.json").read_text())
    assert end["steps"] == 12 and end["metrics"]["eval/loss"] == rows[-1]["eval/loss"] < 0.1 and "mlx" in end
    assert f"{rows[-1]['eval/loss']:.5g}" in out
    entry = run_history.entries()[0]
    assert entry["arguments"] == {"epochs": 3, "rate": 0.2} and entry["file"] == str(tmp_path / "line.py")
    assert entry["result"]["eval/loss"] == end["metrics"]["eval/loss"] and entry["versions"]["python"]
    assert run_estimator.main(["train", "line.py", "--summary", "a"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_run_fits_and_tests_and_test_only_tests(capsys):
    Path("h.yaml").write_text("epochs: 1\nrate: 0.5\n")
    assert run_estimator.main(["run", "line.py", "--hyperparameters", "h.yaml", "--rate", "0.1"]) == 0
    entry = run_history.entries()[0]
    assert entry["arguments"] == {"epochs": 1, "rate": 0.1} and {"eval/loss", "test/loss"} <= entry["result"].keys()
    assert run_estimator.main(["test", "line.py"]) == 0
    assert set(run_history.entries()[0]["result"]) == {"test/loss"}
    Path("own.py").write_text("def fastestimator_run(n=1): print('ran', n + 1)\n")
    capsys.readouterr()
    assert run_estimator.main(["run", "own.py", "--n", "4"]) == 0 and capsys.readouterr().out == "ran 5\n"


def test_an_error_in_the_users_code_keeps_its_traceback_and_is_in_the_history(capsys):
    assert run_estimator.main(["train", "line.py", "--broken"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert run_estimator.main(["train", "line.py", "--epochs", "1"]) == 0
    failed = run_history.entries(errors=True)
    assert [entry["error"] for entry in failed] == ["RuntimeError: broken it is"]
    assert run_estimator.main(["history", "--limit", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "epochs=1" in out[-1] and "eval/loss=" in out[-1] and "line.py" in out[-1]
    assert run_estimator.main(["history", "--filter", "broken", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["arguments"] == {"broken": True}


def test_the_history_survives_a_line_cut_short():
    run_history.add({"command": "train", "file": "a", "arguments": {}})
    with run_history.path().open("a") as stream:
        stream.write('{"when": "20')
    run_history.add({"command": "train", "file": "b", "arguments": {}})
    assert [entry["file"] for entry in run_history.entries()] == ["b", "a"]
    assert [entry["file"] for entry in run_history.entries(1)] == ["b"]


def test_arguments_are_read_as_they_are_declared():
    def function(
        n: int, rate: float = 1.0, name: str = "", sizes: list[int] = (), flag=False, count=3,
        kind: Literal["a", "b"] = "a", maybe: int | None = None, free=None,
        pair: tuple[int, int] = (1, 2), words: list[str] = (),
    ):  # fmt: skip
        pass

    words = (
        "--n 3 --rate -1e-3 --name 1.10 --sizes 1 2 --flag --count=5 --kind b --maybe none --free [1,'x'] --pair 3 4"
    )
    assert arguments_for(function, [*words.split(), "--words", "7"]) == {
        "n": 3, "rate": -1e-3, "name": "1.10", "sizes": [1, 2], "flag": True, "count": 5, "kind": "b", "maybe": None,
        "free": [1, "x"], "pair": (3, 4), "words": ["7"],
    }  # fmt: skip
    assert arguments_for(function, ["--n", "1", "--sizes", "[5,6]"], {"n": 7, "name": "y"}) == {
        "n": 1, "sizes": [5, 6], "name": "y"
    }  # fmt: skip
    assert arguments_for(lambda **any: 0, ["--x", "2", "--y", "z"]) == {"x": 2, "y": "z"}

    def told(words, said):
        with pytest.raises(UsageError, match=said):
            arguments_for(function, words)

    told(["--n", "1", "--rat", "2"], "'rat'; nearest: rate; it takes n, rate, name")
    told(["--n", "one"], "n must be int, got 'one'")
    told(["--n", "1.5"], "n must be int, got 1.5")
    told([], "needs the argument 'n'; give --n VALUE")
    told(["--n", "1", "--kind", "c"], "kind must be one of 'a', 'b', got 'c'")
    told(["--n", "1", "--flag", "maybe"], "flag must be bool, got 'maybe'")
    told(["--n", "1", "--n", "2"], "given twice")
    told(["3"], "can't read '3'")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "nowhere.py"], "no Python file nowhere.py"),
        (["train", "empty.py"], "defines no get_estimator"),
        (["train", "wrong.py"], "wrong.py, line 1"),
        (["train", "other.py"], "must return an Estimator, got int"),
        (["train", "line.py", "--epoch", "2"], "no argument 'epoch'; nearest: epochs; it takes epochs, batch_size"),
        (["train", "line.py", "--hyperparameters", "no.json"], "existing .json, .yaml or .yml file, got 'no.json'"),
        (["train", "line.py", "--hyperparameters", "bad.json"], "can't read bad.json"),
        (["fly", "line.py"], "invalid choice: 'fly'"),
        (["logs", "nowhere"], "no file or folder nowhere"),
        (["logs", "empty"], "holds no record"),
        (["history", "--limit", "0"], "at least 1, got 0"),
        (["history", "--filter", "("], "regular expression"),
        (["history", "--fast"], "takes no '--fast'"),
        (["plot", "no.json"], "no search file no.json"),
    ],
    ids=str,
)
def test_mistakes_cost_one_sentence_and_status_2(arguments, said, capsys):
    Path("empty.py").write_text("")
    Path("wrong.py").write_text("def (")
    Path("other.py").write_text("def get_estimator(): return 1")
    Path("bad.json").write_text("{")
    Path("empty").mkdir()
    assert run_estimator.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error


def record(folder, values, name="train/loss"):
    folder.mkdir(parents=True)
    rows = [json.dumps({"step": step, "time": 1.0, name: value}) for step, value in values.items()]
    (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")


def test_logs_finds_groups_and_draws_runs(tmp_path, capsys):
    record(tmp_path / "runs" / "a_1", {1: 1.0, 3: 3.0})
    record(tmp_path / "runs" / "a_2", {1: 3.0, 2: 3.0, 3: 1.0, 4: 0.0})
    record(tmp_path / "runs" / "b", {1: 2.0}, "eval/loss")
    summary = {"name": "c", "latest": {}, "history": [{"step": 1, "train/loss": 4.0, "note": "text"}]}
    (tmp_path / "runs" / "c.json").write_text(json.dumps(summary))
    (tmp_path / "runs" / "else.json").write_text("[1]")
    files = find_runs([tmp_path / "runs"])
    assert list(files) == ["a_1", "a_2", "b", "c"]
    runs = {name: read_run(file) for name, file in files.items()}
    assert runs["c"]["train/loss"][1].tolist() == [4.0] and list(runs["c"]) == ["train/loss"]
    steps, mean, spread = mean_and_spread([runs["a_1"]["train/loss"], runs["a_2"]["train/loss"]])
    np.testing.assert_allclose([steps, mean, spread], [[1, 2, 3], [2, 2.5, 2], [1, 0.5, 1]])
    assert group_names(list(runs), "_n") == {"a_1": "a", "a_2": "a", "b": "b", "c": "c"}
    assert chosen(["perf/x", "train/loss"], ignore=["perf/*"]) == ["train/loss"]
    command = ["logs", "runs", "--group_by", "_n", "--smooth", "0.5"]
    assert run_estimator.main(command) == 0 and capsys.readouterr().out == "runs/logs.png\n"
    one_panel = [*command, "--ignore", "eval/*", "--save", "one.png", "--share_legend", "false"]
    assert run_estimator.main(one_panel) == 0
    assert Image.open("runs/logs.png").width == 2 * Image.open("one.png").width
    for more, said in (
        (["--include", "los"], "nearest: "), (["--group_by", "a"], "group in parentheses"),
        (["--smooth", "1"], "got 1.0"),
    ):  # fmt: skip
        capsys.readouterr()
        assert run_estimator.main(["logs", "runs", *more]) == 2 and said in capsys.readouterr().err


def test_a_group_is_its_mean_and_a_band(tmp_path):
    """The band's pixels appear with the second run of a group only."""
    one = {"loss": (np.array([1, 2]), np.array([1.0, 2.0]))}
    other = {"loss": (np.array([1, 2]), np.array([3.0, 4.0]))}
    counts = []
    for runs in ({"a_1": one}, {"a_1": one, "a_2": other}):
        pixels = np.asarray(Image.open(compare_runs(runs, tmp_path / "x.png", ["loss"], group_by="_n")).convert("RGB"))
        counts.append(int((np.abs(pixels.astype(int) - [210, 228, 240]).sum(-1) < 12).sum()))
    assert counts[0] < 500 < 5000 < counts[1]


def test_plot_draws_a_search_as_asked(tmp_path, capsys):
    stored(tmp_path, searched(a=[1, 2], b=["x", "yy"]))
    assert run_estimator.main(["plot", "s.json"]) == 0 and capsys.readouterr().out == "s.png\n"
    parallel = ["plot", "s.json", "--draw", "parallel", "--color_by", "total", "--ignore", "b", "--save", "p.png"]
    assert run_estimator.main(parallel) == 0 and Path("p.png").exists()
    assert run_estimator.main(["plot", "s.json", "--color_by", "total"]) == 2
    assert "--draw parallel" in capsys.readouterr().err


def test_help_and_running_as_a_file(capsys):
    assert run_estimator.main([]) == 2 and run_estimator.main(["--help"]) == 0
    assert "--hyperparameters" in capsys.readouterr().out
    command = [sys.executable, ROOT / "scripts" / "run_estimator.py", "train", "line.py", "--epochs", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "eval/loss" in done.stdout, done.stderr
