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
        (["init_from=" + str(ROOT / "models/weights/trm_sudoku.safetensors")], "holds a model for use alone"),
        ([f"seed={2**63}"], "below 2^63"),
        (["model=5"], "Got int"),
        (["model.hidden=0"], "can't be built from shape=[2], hidden=0"),
        (["model.depth=0"], "depth must be at least 1, got 0"),
        (["model.shape=3"], "shape must be tuple | list, got 3"),
        (["optimizer.ema=0.9"], "ema must be Sequence[float], got 0.9"),
        (["optimizer.ema=[abc]"], "got ['abc']"),
        (["optimizer.optimizer._target_=3"], "_target_ must be a dotted path"),
        (["optimizer.learning_rate=-1"], "learning_rate must be a number from 0 on, got -1"),
        (["optimizer.learning_rate=nan"], "got nan"),
        (["optimizer.schedule=abc"], "schedule must be Callable"),
        (["loss.path=abc"], "path must be losses.paths.Path | None, got 'abc'"),
        (["dataloaders.ops=[1]"], "ops must be NumpyOps, Batch or callables of a batch, got 1"),
        (["traces.evaluation.pictures=abc"], "pictures must be Callable | None, got 'abc'"),
        (["+traces.mine=3"], "mine must be a mapping with a _target_, got 3"),
        (["solver=null"], "solver is null"),
        (["loss.times=uniform"], "times must be Callable | None, got 'uniform'"),
        (["loss=meanflow", "loss.pairs=3"], "pairs must be Callable | None, got 3"),
        (["optimizer.groups=[{match:'[',learning_rate:1}]"], "match='[' of a parameter group is no regular expression"),
        (["optimizer.groups=[{match:bias,lr:1}]"], "a parameter group has no key 'lr'; nearest: "),
        (["optimizer.groups=[{learning_rate:1}]"], "a parameter group is a mapping with `match`"),
        (["memory_limit_gb=-1"], "the memory limit must be above 0 (GiB) or null, got -1.0"),
        (
            [
                "model=vit_tiny",
                "model.patch=4",
                "model.depth=1",
                "dataloaders=digits",
                "network=classifier",
                "evaluation=images",
            ],
            "FeatureDistance judges samples, and this run, which trains losses loss, has none",
        ),
        (["--gpu", "H100"], "runs take no --gpu; --gpu and others come with --backend modal"),
        (["--verbose"], "runs take no --verbose"),
        (["--resolve"], "runs take no --resolve; --multirun sweeps, --cfg job prints"),
        (["--config-name", "foo"], "runs take no --config-name"),
        (["dataloaders=null"], "dataloaders is null"),
        (["dataloaders="], "dataloaders= does not exist"),
        (["+experiment=digits_fm"], "needed: experiment=NAME without a +"),
        (["hydra.run.dir=elsewhere"], "hydra.run.dir=elsewhere changes nothing in a single run"),
        (["eval_checkpoint=outputs/t"], "would change nothing"),
        (["model.activation=(x"], "stands in quotes: model.activation='\"(x\"'"),
        (["model=trm", "loss=flow_matching"], "TRM takes none"),
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


def test_a_file_of_a_model_alone_is_no_checkpoint_to_evaluate(capsys):
    assert launcher.main([f"eval_checkpoint={ROOT / 'models/weights/trm_sudoku.safetensors'}", "device=cpu"]) == 2
    assert "holds a model for use alone" in capsys.readouterr().err


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
