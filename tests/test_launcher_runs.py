"""The command line around a run: resuming it, a user's own classes, the table at its end."""

import json
import re
from pathlib import Path

import pytest

import launcher
from dataloaders.source import Generated
from models.mlp import MLP
from runtime.errors import UsageError
from scripts.compose import merged
from tests.test_launcher import TINY, two_steps


@pytest.mark.parametrize("yes", ["true", "1"])
def test_resume_remembers_the_overrides_of_the_first_sitting(yes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert launcher.main([*TINY, "evaluation=none", "model.hidden=12"]) == 0
    assert launcher.main(["run_name=t", f"resume={yes}", "max_steps=4"]) == 0
    assert json.loads(Path("outputs/t/summary.json").read_text())["steps"] == 4
    assert "hidden: 12" in Path("outputs/t/resume-1.yaml").read_text()


@pytest.mark.parametrize("mistake", ["model.hidden=13", "save_every=2x"])
def test_a_sitting_that_fails_before_its_first_step_is_not_remembered(mistake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert launcher.main([*TINY, "evaluation=none", "model.hidden=12"]) == 0
    before = sorted(Path("outputs/t").iterdir())
    assert launcher.main(["run_name=t", "resume=true", "max_steps=4", mistake]) == 2
    said = capsys.readouterr().err
    assert ("Changed since: model.hidden=12 is now 13." in said) == (mistake == "model.hidden=13")
    assert sorted(Path("outputs/t").iterdir()) == before
    assert launcher.main(["run_name=t", "resume=true", "max_steps=3"]) == 0
    assert json.loads(Path("outputs/t/summary.json").read_text())["steps"] == 3


def test_damaged_overrides_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("outputs/t").mkdir(parents=True)
    Path("outputs/t/overrides.json").write_text('["run_name')
    assert launcher.main(["run_name=t", "resume=true"]) == 2
    assert "outputs/t/overrides.json is damaged" in capsys.readouterr().err


def test_a_new_run_that_fails_before_its_first_step_leaves_its_name_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert launcher.main([*TINY, "evaluation=none", "save_every=2x"]) == 2
    assert launcher.main([*TINY, "evaluation=none"]) == 0


def test_a_run_is_replaced_only_when_the_next_one_can_be_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path("outputs/t")

    def files():
        return {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}

    assert launcher.main([*TINY, "evaluation=none"]) == 0
    first = files()
    late = [*TINY, "evaluation=none", "overwrite=true", "model.hidden=12"]
    assert launcher.main([*late, "traces.saver={_target_: traces.BestModelSaver, metric: nowhere}"]) == 2
    assert files() == first
    (run / ".replaced").mkdir()  # a sitting was killed after it had put the first aside, then one fails
    for path in list(run.iterdir()):
        if path.name not in (".lock", ".replaced"):
            path.rename(run / ".replaced" / path.name)
    (run / "config.yaml").write_text("half: written")
    assert launcher.main([*late, "save_every=2x"]) == 2
    assert files() == first
    assert launcher.main(late) == 0
    assert not (run / ".replaced").exists() and "hidden: 12" in (run / "config.yaml").read_text()


def test_a_folder_may_have_any_name_and_resume_finds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place, typed in {"a (ü) 'b'": "a (ü) 'b'", "c d": "'c d'"}.items():
        assert launcher.main([*TINY, "evaluation=none", "model.hidden=12", f"output_dir={typed}"]) == 0
        assert launcher.main(["run_name=t", "resume=yes", "max_steps=3", f"output_dir={typed}"]) == 0
        assert json.loads((Path(place) / "t" / "summary.json").read_text())["steps"] == 3
        quote = "'" if typed != place else ""
        assert launcher.main([f"eval_checkpoint={quote}{place}/t{quote}", "device=cpu"]) == 0


def test_a_sitting_keeps_the_order_and_the_deletions_of_those_before():
    first = ["run_name=t", "~dataloaders.train_data", "+dataloaders.train_data={_target_:a.B,file:c}", "model.hidden=3"]
    assert merged(first, ["run_name=t", "resume=true", "model.hidden=4"]) == [
        *first[1:3], "run_name=t", "resume=true", "model.hidden=4"
    ]  # fmt: skip
    assert merged(first, ["+dataloaders.train_data={}"]) == [*first[:2], first[3], "+dataloaders.train_data={}"]
    assert merged(["~model"], ["model=unet"]) == ["model=unet"]


def test_what_is_no_module_or_has_nothing_to_train_is_refused(tmp_path):
    mine = ["plugins=[tests]", "evaluation=none"]
    with pytest.raises(UsageError, match="model must be an mlx.nn.Module, got .*Path"):
        two_steps(tmp_path, *mine, "model=null", "+model._target_=tests.test_launcher_runs.Path")
    with pytest.raises(UsageError, match="this Frozen has no trainable arrays"):
        two_steps(tmp_path, *mine, "model._target_=tests.test_launcher_runs.Frozen")


def test_a_metric_of_an_earlier_step_is_told_with_its_step(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert launcher.main([*TINY, "evaluation=none", "eval_every=2s", "max_steps=3"]) == 0
    assert "\nof step 2: eval/loss\n" in capsys.readouterr().out
    assert launcher.main(["run_name=t", "resume=true", "max_steps=4"]) == 0
    assert "of step" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["NoX", "Short"])
def test_a_data_set_of_ones_own_that_gives_something_else_is_told(kind, tmp_path):
    said = {
        "NoX": "FlowMatching misses 'x' in mode train; the data has y",
        "Short": "asked for 1024 samples, got {'x': 3}",
    }
    target = f"+dataloaders.train_data._target_=tests.test_launcher_runs.{kind}"
    own = ["plugins=[tests]", "dataloaders.train_data=null", target, "dataloaders.eval_data=null", "evaluation=none"]
    with pytest.raises(UsageError, match=re.escape(said[kind])):
        two_steps(tmp_path, *own)


class NoX(Generated):
    """Points under another name."""

    shape = (2,)

    def draw(self, count, rng):
        return {"y": rng.normal(size=(count, 2))}


class Short(Generated):
    """Three points, whatever is asked for."""

    shape = (2,)

    def draw(self, count, rng):
        return {"x": rng.normal(size=(3, 2))}


def test_plugins_let_a_users_package_be_a_target(tmp_path):
    with pytest.raises(UsageError, match="outside the packages"):
        two_steps(tmp_path, "model._target_=tests.test_launcher_runs.Mine")
    two_steps(tmp_path, "plugins=[tests]", "model._target_=tests.test_launcher_runs.Mine", "evaluation=none")


class Mine(MLP):
    """A user's own model."""


class Frozen(Mine):
    """One that was frozen and never thawed."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.freeze()


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
