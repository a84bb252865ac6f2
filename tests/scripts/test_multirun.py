"""Hydra's multirun: crashes are marked, edits of YAML come too late, a sweep goes on where it was."""

import csv
import json
import multiprocessing.resource_tracker
import multiprocessing.spawn
import shutil
from pathlib import Path

import pytest

import launcher
from scripts import search, sweep_folder, sweep_report, trials
from scripts.compose import compose
from tests.scripts import sweeping
from training.summary import Summary

IN_A_PROCESS = trials.Processes.run
QUICK = ["run_name=s", "trackio.enabled=false"]


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    """A folder of its own, no pictures, jobs in this process (in their own: tests/test_launcher_mistakes.py)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_report, "pictures", lambda *_: [])
    monkeypatch.setattr(trials.Processes, "run", lambda self, trial, report=None: trials.run_here(trial, report))


def rows():
    with Path("outputs/s/sweep.csv").open() as file:
        return list(csv.DictReader(file))


def calls():
    return Path("calls").read_text().split()


def test_a_crash_marks_its_job_and_a_resumed_sweep_repeats_no_job(capsys):
    command = ["-m", *QUICK, "seed=3,11", "hydra.sweeper.max_batch_size=1"]
    with sweeping.installed():
        assert launcher.main(command) == 1
        assert [(row["trial"], row["status"], row["seed"]) for row in rows()] == [
            ("0", "crashed", "3"), ("1", "finished", "11")
        ]  # fmt: skip
        output = capsys.readouterr()
        assert (
            "job 0 (seed=3) failed: sizes must be positive" in output.err
            and "2 trials: 1 finished, 1 crashed" in output.out
        )
        assert "best    eval/loss=0 in outputs/s/1\n        seed=11" in output.out
        assert "Traceback" in Path("outputs/s/0/traceback.txt").read_text()
        assert launcher.main(command) == 2 and "resume=true" in capsys.readouterr().err
        record = json.loads(Path("outputs/s/1/trial.json").read_text())
        Path("outputs/s/1/trial.json").write_text(json.dumps({**record, "status": "running"}))  # as a kill leaves it
        assert launcher.main([*command, "resume=true"]) == 1
        assert calls() == ["3", "11", "11"] and [row["status"] for row in rows()][1] == "finished"
        assert launcher.main([*command, "resume=true", "epochs=20"]) == 1
        assert calls()[3:] == ["3", "11"]  # other overrides: all go on
        assert launcher.main([*command[:-2], "seed=1,2", "resume=true"]) == 2
        assert "holds another sweep" in capsys.readouterr().err


def test_mistakes_are_told_before_the_first_job(capsys):
    for arguments, said in (
        (["seed=1,2"], "run_name is missing"),
        ([*QUICK, "model=mlp,mlpp"], "model=mlpp does not exist"),
        ([*QUICK, "seed=1,2", "hydra.sweep.dir=x"], "got hydra.sweep.dir=x"),
    ):
        assert launcher.main(["--multirun", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and said in error
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("main", "command"),
    [(launcher.main, ["-m"]), (search.main, ["method=grid", "jobs=0"])],
    ids=["multirun", "search"],
)
def test_edits_after_the_launch_reach_no_trial(main, command, monkeypatch):
    configs = Path("configs").resolve()
    shutil.copytree(sweep_folder.CONFIGS, configs)
    monkeypatch.setattr(sweep_folder, "CONFIGS", configs)
    monkeypatch.setattr(compose, "__defaults__", (configs,))  # what a trial would read without its sweep's copy
    file, depths = configs / "model" / "mlp.yaml", []
    assert "depth: 3" in file.read_text()

    def train(config, folder, overrides, traces):
        depths.append((config.seed, config.model.depth))
        file.write_text(file.read_text().replace("depth: 3", "depth: 9"))
        if len(depths) == 2:
            raise KeyboardInterrupt  # the sweep ends here, and goes on below
        return Summary(1, "finished", {"eval/loss": 1.0})

    monkeypatch.setattr(trials, "train", train)
    command = [*command, *QUICK, "seed=1,2"]
    with pytest.raises(KeyboardInterrupt):
        main(command)
    assert main([*command, "resume=true"]) == 0
    assert depths == [(1, 3), (2, 3), (2, 3)] and "depth: 9" in file.read_text()


def test_a_process_that_cannot_start_has_a_whole_record(tmp_path, monkeypatch, capsys):
    multiprocessing.resource_tracker.ensure_running()  # with the real Python
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", b"/bin/false")
    trial = trials.Trial(tmp_path, 0, ("run_name=x",), {"seed": 0})
    record = IN_A_PROCESS(trials.Processes(), trial)
    assert record["status"] == "crashed" and record["exit_status"] == 1 and record["metrics"] == {}
    assert sweep_report.conclude(tmp_path, "eval/loss") == [record] and "1 crashed" in capsys.readouterr().out
