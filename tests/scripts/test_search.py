"""Searches over the launcher's configuration: what each method trains, what a kill leaves, what is refused."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runtime.errors import UsageError
from scripts import search, sweep_report
from scripts.sweeps import point_overrides, read_sweeps
from tests.scripts import sweeping
from traces.prune import Prune
from training.search.space import Interval
from training.workspace import locked

ROOT = Path(__file__).parents[2]
TINY = [
    "run_name=s", "epochs=null", "max_steps=4", "eval_every=2s", "save_every=1s", "trackio.enabled=false",
    "device=cpu", "evaluation=none", "traces.evaluation.pictures=null", "traces.progress.quiet=true", "compile=false",
    "batch_size=16", "dataloaders.train_data.size=64", "dataloaders.eval_data.size=32", "jobs=0", "model.hidden=4",
    "model.depth=1",
]  # fmt: skip
DRAWN = sweep_report.pictures
RATE = "optimizer.learning_rate=tag(log,interval(1e-3,1e-1))"


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    """A folder of its own, and no pictures, which take most of the time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_report, "pictures", lambda *_: [])


@pytest.fixture
def untrained():
    """Trials that train nothing."""
    with sweeping.installed():
        yield


def trials():
    return json.loads(Path("outputs/s/search.json").read_text())["search_summary"]


def test_sweeps_are_hydras(capsys):
    space, fixed = read_sweeps(
        ["a=interval(1,8)", "b=int(interval(1,8))", RATE, "c=1,x,true", "d=choice('q r',[1,2])", "e=range(1,6,2)",
         "model=mlp", "run_name=1.10"]
    )  # fmt: skip
    assert fixed == ["model=mlp", "run_name=1.10"]
    assert space == {
        "a": Interval(1, 8), "b": Interval(1, 8, integer=True), "c": [1, "x", True], "d": [r"q\ r", "[1,2]"],
        "e": [1, 3, 5], "optimizer.learning_rate": Interval(1e-3, 1e-1, log=True),
    }  # fmt: skip
    assert isinstance(space["c"], list) and space["c"][2] is True
    assert point_overrides({"c": True, "d": "[1,2]", "f": 1e-5}) == ["c=true", "d=[1,2]", "f=1e-05"]


def test_a_grid_trains_every_combination_as_the_launcher_would(capsys, monkeypatch):
    monkeypatch.setattr(sweep_report, "pictures", DRAWN)
    assert search.main(["method=grid", *TINY[:-2], "model.hidden=4,-4", "model.depth=1,2"]) == 0
    done = trials()
    assert [(d["param"]["model.hidden"], d["param"]["model.depth"], "error" in d) for d in done] == [
        (4, 1, False), (4, 2, False), (-4, 1, True), (-4, 2, True)
    ]  # fmt: skip
    alone = json.loads(Path("outputs/s/2/summary.json").read_text())
    assert alone["metrics"]["eval/loss"] == done[1]["result"]["eval/loss"] and alone["steps"] == 4
    config = Path("outputs/s/2/config.yaml").read_text()
    assert "depth: 2" in config and "run_name: s_2\n" in config
    out = capsys.readouterr().out
    best = min((d for d in done if "result" in d), key=lambda d: d["result"]["eval/loss"])["param"]["search_idx"]
    assert f"in outputs/s/{best}\n" in out and "4 trials: 2 finished, 2 crashed\n" in out
    assert Path("outputs/s/sweep.png").exists() and Path("outputs/s/curves.png").exists()


@pytest.mark.parametrize(("method", "count"), [("random", 3), ("golden", 4)])
def test_intervals_are_searched(method, count, untrained):
    assert search.main([f"method={method}", f"trials={count}", *TINY, RATE]) == 0
    rates = [d["param"]["optimizer.learning_rate"] for d in trials()]
    assert len(rates) == count and all(1e-3 <= rate <= 1e-1 for rate in rates)
    assert search.main([f"method={method}", f"trials={count + 1}", *TINY, RATE]) == 0
    assert [d["param"]["optimizer.learning_rate"] for d in trials()][:count] == rates and len(trials()) == count + 1


def test_optuna_prunes_runs_without_hope():
    rates = "optimizer.learning_rate=choice(0.05,1e-9)"
    command = [
        "method=optuna",
        "trials=8",
        "search_seed=1",
        "pruner=median",
        *TINY,
        "max_steps=6",
        rates,
        "seed=range(0,9)",
    ]
    assert search.main(command) == 0
    assert len(trials()) == 8
    pruned = [d["param"]["search_idx"] for d in trials() if d.get("pruned")]
    assert pruned
    for index in range(1, 9):
        summary = json.loads(Path(f"outputs/s/{index}/summary.json").read_text())
        assert summary["reason"].startswith("pruned: eval/loss=") == (index in pruned)
        assert summary["steps"] in (2, 4, 6) and (summary["steps"] == 6 or index in pruned)


def test_an_interrupted_search_continues_its_trial_from_the_checkpoint(capsys, monkeypatch):
    class Killed(BaseException):
        pass

    told = Prune.on_log

    def on_log(self, values):
        told(self, values)
        if "eval/loss" in values and self.estimator.step == 4 and self.estimator.workspace.folder.name == "2":
            raise Killed

    command = ["method=optuna", "trials=2", *TINY, RATE]
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Prune, "on_log", on_log)
        search.main(command)
    assert len(trials()) == 1 and "2      unfinished" in capsys.readouterr().out
    assert search.main(command) == 0 and "resuming s_2 from step_00000003" in capsys.readouterr().out
    parts = trials()
    assert search.main([*command, "output_dir=whole", "overwrite=true"]) == 0
    whole = json.loads(Path("whole/s/search.json").read_text())["search_summary"]
    assert whole == parts and len(parts) == 2


def test_twenty_trials_three_crashes_and_a_kill_make_twenty_rows(untrained):
    command = ["method=grid", *TINY[:-3], "jobs=0", "seed=range(1,21)"]
    code = "import sys; from tests.scripts import sweeping; sweeping.install(); from scripts import search; "
    killed = subprocess.run([sys.executable, "-c", code + "sys.exit(search.main(sys.argv[1:]))", *command],
                            env={**os.environ, "PYTHONPATH": str(ROOT), "KILLED_AT": "9"})  # fmt: skip
    assert killed.returncode == -signal.SIGKILL and not Path("outputs/s/sweep.csv").exists()
    assert json.loads(Path("outputs/s/9/trial.json").read_text())["status"] == "running"
    assert search.main(command) == 0
    with Path("outputs/s/sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in rows] == list(range(1, 21)) == [int(row["seed"]) for row in rows]
    crashed = {int(row["trial"]): (row["exit_status"], row["error"]) for row in rows if row["status"] == "crashed"}
    assert crashed == {
        3: ("2", "sizes must be positive, got -3."),
        8: ("1", "ValueError: shapes (2,) and (3,), say"),
        13: ("1", "FloatingPointError: eval/loss is nan after 4 steps."),
    }
    assert all(row["status"] == "finished" for row in rows if int(row["trial"]) not in crashed)
    assert [row["eval/loss"] for row in rows[10:13]] == ["0.0", "1.0", ""]
    assert Path("calls").read_text().split() == [str(n) for n in (*range(1, 10), *range(9, 21))]


@pytest.mark.slow
def test_twenty_real_runs_three_crashes_and_a_kill_of_the_sweep_make_twenty_rows():
    values = [f"{n}e-4" for n in range(1, 18)]
    values[5:5], values[9:9], values[15:15] = ["1e30"], ["-1.0"], ["abc"]
    command = [sys.executable, ROOT / "launcher.py", "--multirun", *TINY[:-3], "max_steps=100", "compile=true",
               "optimizer.learning_rate=" + ",".join(values)]  # fmt: skip
    sweep = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    record = Path("outputs/s/12/metrics.jsonl")
    while not (record.exists() and record.stat().st_size):
        time.sleep(0.01)
    sweep.kill()
    sweep.wait()
    for _ in range(200):
        with contextlib.suppress(UsageError):
            locked(record.parent).close()  # once the trial's process is gone, too
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the trial goes on without its sweep")
    assert json.loads((record.parent / "trial.json").read_text())["status"] == "running"
    begun = {n: Path(f"outputs/s/{n}/trial.json").stat().st_mtime_ns for n in range(12)}
    resumed = subprocess.run([*command, "resume=true"], capture_output=True, text=True)
    assert resumed.returncode == 1 and "resuming s_12 from step_" in resumed.stdout
    assert "20 trials: 17 finished, 3 crashed" in resumed.stdout
    with Path("outputs/s/sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["optimizer.learning_rate"] for row in rows] == [str(float(v)) if v != "abc" else v for v in values]
    assert [row["trial"] for row in rows if row["status"] == "crashed"] == ["5", "9", "15"]
    assert begun == {n: Path(f"outputs/s/{n}/trial.json").stat().st_mtime_ns for n in range(12)}


def test_a_signal_asks_the_trial_to_save_and_a_later_sitting_goes_on(capfd):
    fast = [text for text in TINY if not text.startswith(("jobs", "max_steps", "save_every"))]
    command = ["method=grid", *fast, "max_steps=1000000", "save_every=null", "seed=1,2"]
    record = Path("outputs/s/1/metrics.jsonl")

    def stop():
        while not (record.exists() and record.stat().st_size):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    assert search.main(command) == 128 + signal.SIGTERM
    assert len(list(Path("outputs/s/1/checkpoints").iterdir())) == 1 and not Path("outputs/s/2").exists()
    out = capfd.readouterr().out
    assert "1 trials: 1 unfinished" in out and "resume=true" not in out
    assert json.loads(Path("outputs/s/search.json").read_text())["begun"] == [{"seed": 1, "search_idx": 1}]


BOMB = """
import os, signal, time
from pathlib import Path

from traces.trace import Trace


class Bomb(Trace):
    def __init__(self, kind):
        super().__init__(mode="train")
        self.kind = kind

    def on_batch_end(self, data):
        if self.kind == "none":
            return
        Path(self.kind).touch()  # the two die together, so they must run together
        for _ in range(400):
            if Path("kill").exists() and Path("exit").exists():
                break
            time.sleep(0.05)
        else:
            raise TimeoutError("alone")
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(7)
"""


def test_what_kills_a_trials_process_marks_it_alone_and_two_run_at_once(monkeypatch):
    Path("bomb.py").write_text(BOMB)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    command = ["method=grid", *TINY[:-3], "jobs=2", "plugins=[bomb]", "+traces.bomb._target_=bomb.Bomb",
               "+traces.bomb.kind=kill,exit,none"]  # fmt: skip
    assert search.main(command) == 0
    found = {n: json.loads(Path(f"outputs/s/{n}/trial.json").read_text()) for n in (1, 2, 3)}
    assert [found[n]["exit_status"] for n in (1, 2, 3)] == [-9, 7, 0]
    assert [found[n]["status"] for n in (1, 2, 3)] == ["crashed", "crashed", "finished"]
    assert found[1]["error"] == "its process was ended by SIGKILL."
    assert "finished after 4 steps" in Path("outputs/s/3/output.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["method=gird", "seed=1,2"], "one of grid, random, golden, optuna, got 'gird'"),
        (["method=grid"], "no key has several values"),
        (["method=grid", RATE], "an interval for optimizer.learning_rate"),
        (["method=grid", "trials=3", "seed=1,2"], "trials=3"),
        (["method=golden", "seed=1,2"], "one sweep, an interval, got sweeps of seed"),
        (["method=golden", "trials=2", RATE], "at least 3 trials, got 2"),
        (["method=random", "seed=glob(*)"], "glob"),
        (["method=random", "modle.hidden=1,2"], "nearest: model"),
        (["method=random", "trials=many", "seed=1,2"], "'many'"),
        (["method=random", "model=mlp,mlpp"], "model=mlpp does not exist"),
        (["method=golden", "jobs=2", RATE], "needs the one before, got 2"),
        (["method=random", "jobs=-1", "seed=1,2"], "jobs must be 0 or more, got -1"),
        (["method=random", "mode=best", "seed=1,2"], "min or max, got 'best'"),
        (["method=optuna", "pruner=mean", "seed=1,2"], "got 'mean'"),
        (["seed=1,2"], "method is missing"),
        (["method=grid", "metric=eval/los", "seed=1,2"], "the held-out metrics are eval/loss"),
    ],
    ids=str,
)
def test_mistakes_cost_one_sentence_and_status_2(arguments, said, capsys):
    assert search.main([*TINY, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error


def test_a_folder_with_something_else_is_refused(capsys, untrained):
    command = ["method=random", "trials=1", *TINY, RATE]
    assert search.main(command) == 0
    assert search.main([*command, "search_seed=1"]) == 2
    assert "its search_seed was 0, now 1" in capsys.readouterr().err
    assert search.main([*command, "search_seed=1", "overwrite=true"]) == 0
    Path("outputs/s/config.yaml").write_text("")
    assert search.main(command) == 2 and "is a run" in capsys.readouterr().err
