"""Optuna as a search: it learns, prunes, and goes on after a kill as if there had been none."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import UsageError
from training.search.optuna import OptunaSearch
from training.search.space import Interval

ROOT = Path(__file__).parents[2]
SPACE = {"x": Interval(-5, 5), "n": Interval(1, 8, integer=True), "kind": ["plain", "far"]}


def bowl(search_idx, x, n, kind):
    return {"loss": (x - 1) ** 2 + abs(n - 3) + (5 if kind == "far" else 0)}


def test_later_proposals_are_better_than_the_random_ones():
    search = OptunaSearch(bowl, SPACE, 50, optimize_field="loss")
    search.fit()
    losses = [done["result"]["loss"] for done in search.get_search_summary()]
    assert np.median(losses[10:]) < 0.7 * np.median(losses[:10])  # the first ten are random
    best = search.get_best_results()
    assert best["result"]["loss"] == min(losses) == search.study.best_value
    assert all(-5 <= d["param"]["x"] <= 5 and d["param"]["n"] in range(1, 9) for d in search.get_search_summary())


def test_hopeless_trials_end_early_and_are_not_the_best():
    ended = {}

    def evaluated(search_idx, x, report):
        for step in range(1, 11):
            if report(x + 1 / step, step):
                break
        ended[search_idx] = step
        return -100.0 if step < 10 else x  # a value that would win, were pruned trials counted

    search = OptunaSearch(evaluated, {"x": Interval(0, 1)}, 15, seed=2, pruner_options={"n_startup_trials": 3})
    search.fit()
    pruned = {done["param"]["search_idx"] for done in search.get_search_summary() if done.get("pruned")}
    assert pruned == {index for index, steps in ended.items() if steps < 10} and 2 <= len(pruned) < 12
    assert search.get_best_results()["param"]["search_idx"] not in pruned
    assert sum(trial.state.name == "PRUNED" for trial in search.study.trials) == len(pruned)


def test_proposals_keep_away_from_what_fails():
    def evaluated(search_idx, x, kind):
        if kind == "bad":
            raise ValueError("this kind can't be built")
        return (x - 1) ** 2

    search = OptunaSearch(evaluated, {"x": Interval(-5, 5), "kind": ["a", "b", "bad"]}, 40)
    search.fit()
    failed = ["error" in done for done in search.get_search_summary()]
    assert 1 <= sum(failed[:10]) and sum(failed[10:]) <= 8  # by chance 10 of 30


CHILD = """
import json, os, signal, sys
from pathlib import Path
from training.search.optuna import OptunaSearch
from tests.training.test_optuna import SPACE, bowl

folder, killed = Path(sys.argv[1]), int(sys.argv[2])

def evaluated(search_idx, x, n, kind, report):
    with (folder / "calls").open("a") as calls:
        calls.write(f"{search_idx} {x}\\n")
    report(x, 1)
    if search_idx == killed:
        os.kill(os.getpid(), signal.SIGKILL)
    if search_idx == 2:
        raise ValueError("the second fails")
    return bowl(search_idx, x, n, kind)

search = OptunaSearch(evaluated, SPACE, 14, optimize_field="loss", seed=5)
search.fit(folder)
print(json.dumps([search.get_search_summary(), [t.state.name for t in search.study.trials]]))
"""


def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path):
    def searched(folder, killed):
        folder.mkdir(exist_ok=True)
        return subprocess.run([sys.executable, "-c", CHILD, folder, str(killed)], cwd=ROOT, capture_output=True,
                              text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip

    whole = searched(tmp_path / "whole", 0)
    assert searched(tmp_path / "parts", 12).returncode == -signal.SIGKILL
    resumed = searched(tmp_path / "parts", 0)
    assert whole.returncode == resumed.returncode == 0, whole.stderr + resumed.stderr
    assert resumed.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1]
    states = json.loads(whole.stdout.splitlines()[-1])[1]
    assert len(states) == 14 and states[1] == "PRUNED" and "RUNNING" not in states
    once = (tmp_path / "whole" / "calls").read_text().splitlines()
    assert (tmp_path / "parts" / "calls").read_text().splitlines() == [*once[:12], *once[11:]]


def test_two_trials_at_once_are_all_told_with_numbers_of_their_own(tmp_path):
    together = threading.Barrier(2, timeout=20)

    def evaluated(search_idx, x, n, kind, report):
        together.wait()  # passes only if two are at it
        report(x, 1)
        if search_idx == 4:
            raise ValueError("the fourth fails")
        return bowl(search_idx, x, n, kind)

    search = OptunaSearch(evaluated, SPACE, 8, optimize_field="loss", pruner="none")
    search.fit(tmp_path, jobs=2)
    summary = search.get_search_summary()
    assert [done["param"]["search_idx"] for done in summary] == list(range(1, 9))
    assert len({done["param"]["x"] for done in summary}) == 8
    states = [trial.state.name for trial in search.study.trials]
    assert sorted(states) == ["COMPLETE"] * 7 + ["PRUNED"]
    values = sorted(trial.value for trial in search.study.trials if trial.state.name == "COMPLETE")
    assert values == sorted(done["result"]["loss"] for done in summary if "result" in done)


def test_more_trials_continue_and_mistakes_are_told(tmp_path):
    for n in (2, 4):
        search = OptunaSearch(bowl, SPACE, n, optimize_field="loss")
        search.fit(tmp_path)
        assert len(search.study.trials) == n == len(search.get_search_summary())
    with pytest.raises(UsageError, match="one of none, median, hyperband, halving, got 'mean'"):
        OptunaSearch(bowl, SPACE, 2, pruner="mean")
    with pytest.raises(UsageError, match="x needs an Interval or a list"):
        OptunaSearch(bowl, {"x": [[1], [2]]}, 2)
    with pytest.raises(UsageError, match="at least 1, got 0"):
        OptunaSearch(bowl, SPACE, 0)
