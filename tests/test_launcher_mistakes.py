"""The command line's answers to mistakes: one sentence, exit status 2, nothing trained."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import launcher
from scripts.compose import compose
from tests.test_launcher import TINY

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["modle=unet"], "nearest: model"),
        (["model=unett"], "nearest: unet"),
        (["model.hiden=3"], "nearest: hidden"),
        (["trackio.projct=x"], "nearest: project"),
        (["model.hidden=abc"], "hidden must be int, got 'abc'"),
        (["epochs=abc"], "epochs"),
        (["epochs=0"], "at least 1, got 0"),
        (["device=gpuu"], "did you mean gpu"),
        (["precision=bf61"], "did you mean bf16"),
        (["run_name=../x"], "'../x'"),
        (["run_name=a/b"], "'a/b'"),
        (["seed=-1"], "got -1"),
        (["distributed.processes=0"], "distributed.processes must be at least 1, got 0"),
        (["distributed.strategy=fsd"], "did you mean fsdp"),
        (["distributed.processes=2", "distributed.backend=jaccl"], "start them with mlx.launch --backend jaccl"),
        (["resume=true", "overwrite=true"], "contradict"),
        (["loss.path._target_=os.system"], "outside the packages"),
        (["eval_every=2x"], "'2x'"),
        (["save_every=2x"], "'2x'"),
        (["traces.evaluation.every=2x"], "'2x'"),
        (["max_time=soon"], "'soon'"),
        (["batch_size=300000"], "300000 exceeds the 200000"),
        (["accumulate=1000"], "1000"),
        (["optimizer.clip=-1"], "-1"),
        (["optimizer.ema=[1.5]"], "1.5"),
        (["solver.steps=0"], "0"),
        (["evaluation.count=10000000"], "lower evaluation.count"),
        (["model.shape=[3]"], "3"),
        (["model=cnn"], "shape"),
        (["model=autoencoder", "dataloaders=digits"], "give loss=autoencoder"),
        (["'x"], "can't read the override"),
        (["init_from=/nowhere"], "/nowhere"),
    ],
    ids=str,
)
def test_mistakes_cost_one_sentence_and_exit_status_2_before_step_0(overrides, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status = launcher.main(
        [*(o for o in TINY if o.split("=")[0] not in [x.split("=")[0] for x in overrides]), *overrides]
    )
    captured = capsys.readouterr()
    assert status == 2 and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert said in captured.err
    assert not list(tmp_path.glob("outputs/*/checkpoints/*"))


def test_run_name_is_mandatory_and_help_teaches(capsys):
    assert launcher.main(["epochs=1"]) == 2
    assert "run_name=first" in capsys.readouterr().err
    assert launcher.main(["--help"]) == 0
    assert "flow_matching" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["1.10", "1e3", "2024_01_02", "true", "null", "0x10"])
def test_run_names_are_never_retyped(name):
    assert compose([f"run_name={name}"]).run_name == name


@pytest.mark.parametrize("place", [[], ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]], ids=["one", "joblib"])
def test_a_sweep_goes_on_after_a_failed_job_and_exits_with_an_error(tmp_path, place):
    done = subprocess.run(
        [sys.executable, ROOT / "launcher.py", "--multirun", *TINY[1:], "run_name=s", "model.hidden=-4,4",
         "evaluation=none", *place],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "job 0 (model.hidden=-4) failed: " in done.stderr, done.stderr
    assert "2 trials: 1 finished, 1 crashed" in done.stdout
    assert json.loads((tmp_path / "outputs" / "s" / "1" / "summary.json").read_text())["steps"] == 2
