"""The command line around a run: resuming it, a user's own classes, the table at its end."""

import json
from pathlib import Path

import pytest

import launcher
from models.mlp import MLP
from runtime.errors import UsageError
from tests.test_launcher import TINY, two_steps


@pytest.mark.parametrize("yes", ["true", "1"])
def test_resume_remembers_the_overrides_of_the_first_sitting(yes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert launcher.main([*TINY, "evaluation=none", "model.hidden=12"]) == 0
    assert launcher.main(["run_name=t", f"resume={yes}", "max_steps=4"]) == 0
    assert json.loads(Path("outputs/t/summary.json").read_text())["steps"] == 4
    assert "hidden: 12" in Path("outputs/t/resume-1.yaml").read_text()


def test_plugins_let_a_users_package_be_a_target(tmp_path):
    with pytest.raises(UsageError, match="outside the packages"):
        two_steps(tmp_path, "model._target_=tests.test_launcher_runs.Mine")
    two_steps(tmp_path, "plugins=[tests]", "model._target_=tests.test_launcher_runs.Mine", "evaluation=none")


class Mine(MLP):
    """A user's own model."""


def test_the_table_shows_every_floor_whatever_the_solver_is_called():
    metrics = {
        "eval/loss": 1.0, "eval/fd_EffLite0_5k_1step": 2.0, "eval/fd_EffLite0_5k/one_step": 3.0, "eval/emd": 4.0,
        "eval/fd_EffLite0_5k_floor": 0.25, "eval/emd_floor": 0.5, "eval/a_very_long_name_of_a_metric/euler50": 5.0,
        "eval/a/b": 6.0, "eval/a/b_floor": 0.75,
    }  # fmt: skip
    head, *rows = launcher.table(metrics)
    assert {len(row) for row in rows} == {len(head)}  # columns stay under their heads
    shown = {row.split()[0]: row.split()[1:] for row in rows}
    assert shown == {
        "eval/loss": ["1"], "eval/fd_EffLite0_5k_1step": ["2", "0.25"], "eval/fd_EffLite0_5k/one_step": ["3", "0.25"],
        "eval/emd": ["4", "0.5"], "eval/a_very_long_name_of_a_metric/euler50": ["5"], "eval/a/b": ["6", "0.75"],
    }  # fmt: skip
