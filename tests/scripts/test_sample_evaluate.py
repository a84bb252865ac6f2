"""Sampling and evaluating from checkpoints, of runs trained through the launcher's own `train`."""

import json
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

import launcher
from dataloaders.pipeline import Pipeline
from dataloaders.source import ArraySource
from losses.flow_matching import FlowMatching
from models.mlp import MLP
from runtime.errors import UsageError
from runtime.run import Run
from scripts import evaluate, pictures, sample
from scripts.arguments import parse
from scripts.compose import compose
from scripts.sampling import labels, normal_noise, opened
from training.experiment import load_run

ROOT = Path(__file__).parents[2]
SMALL = [
    "run_name=r", "epochs=null", "eval_every=20s", "save_every=20s", "max_steps=20", "traces.evaluation.pictures=null",
    "traces.progress.quiet=true", "device=cpu", "compile=false", "trackio.enabled=false", "model.hidden=8",
    "model.depth=1", "batch_size=32",
]  # fmt: skip
POINTS = ["evaluation.count=60", "evaluation.exact_count=30", "evaluation.floor_pairs=1",
          "dataloaders.eval_data.size=100", "solver.steps=5", "optimizer.ema=[0.5,0.99]"]  # fmt: skip
LABELLED = ["dataloaders=digits", "evaluation=none", "loss.conditions=[label]", "loss.label_dropout=0.1",
            "solver.steps=2"]  # fmt: skip


def trained(folder, *more):
    overrides = [*SMALL, *more]
    launcher.train(compose(overrides), folder, overrides)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("plain") / "r", *POINTS)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("labelled") / "r", *LABELLED)


def drawn(run, folder, *more):
    """The file of scripts/sample.py as a dictionary, info read."""
    out = folder / "samples.npz"
    assert sample.main([f"checkpoint={run}", f"out={out}", "num_samples=50", "device=cpu", *more]) == 0
    with np.load(out) as stored:
        arrays = dict(stored)
    return {**arrays, "info": json.loads(str(arrays["info"]))}


def test_in_a_notebook_conditions_are_one_value_for_all_or_one_each(labelled):
    run = load_run(labelled)
    np.testing.assert_array_equal(run.samples(3, label=2), run.samples(3, label=np.array([2, 2, 2])))
    for mistake, said in (
        ({"count": 0}, "whole numbers from 1 on, got 0"),
        ({"count": 3, "label": [1, 2]}, r"label must have one value for each of 3 samples, got shape \(2,\)"),
        ({"count": 3, "label": [1, 2, 77]}, r"label must lie in 0..9 \(or be -1: no class\), got 1..77"),
        ({"count": 3, "labels": 2}, "takes no condition 'labels'; those it takes: label"),
    ):
        with pytest.raises(UsageError, match=said):
            run.samples(**mistake)
    assert run.samples(2).shape == (2, 8, 8, 1)  # it was trained without a label, too
    run.objective.label_dropout = 0.0
    with pytest.raises(UsageError, match="trained with labels and never without: give label=, 0 to 9"):
        run.samples(2)


def test_the_same_seed_gives_the_same_bytes_and_the_runs_own_samples(plain, tmp_path, capsys):
    got = drawn(plain, tmp_path, "seed=3")
    first = (tmp_path / "samples.npz").read_bytes()
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "50 samples (2,) by Euler, NFE 5," in line and "samples/s" in line
    drawn(plain, tmp_path, "seed=3")
    assert (tmp_path / "samples.npz").read_bytes() == first
    assert not np.array_equal(drawn(plain, tmp_path, "seed=4")["samples"], got["samples"])
    run = load_run(plain)  # with its data
    np.testing.assert_array_equal(got["samples"], run.samples(50, seed=3))
    np.testing.assert_array_equal(got["noise"], run.pipeline.noise(50, np.random.default_rng(3)))
    assert got["info"]["step"] == 20 and got["info"]["seed"] == 3
    assert got["info"]["checkpoint"].endswith("step_00000020.safetensors") and "label" not in got


@pytest.mark.parametrize(
    ("options", "evaluations"),
    [(["solver.steps=7"], 7), (["solver=heun", "solver.steps=20"], 40), (["solver=rk4"], 200), (["batch=20"], 5)],
    ids=str,
)
def test_a_chosen_solver_takes_its_documented_evaluations(plain, tmp_path, options, evaluations):
    got = drawn(plain, tmp_path, *options)
    assert got["info"]["evaluations"] == evaluations and got["samples"].shape == (50, 2)


def test_an_adaptive_solver_agrees_with_a_fine_fixed_one(plain, tmp_path):
    fine = drawn(plain, tmp_path, "solver=rk4", "solver.steps=100")
    adaptive = drawn(plain, tmp_path, "solver=dopri5", "solver.rtol=1e-6")
    np.testing.assert_allclose(adaptive["samples"], fine["samples"], atol=1e-4)
    assert adaptive["info"]["solver"]["rtol"] == 1e-6 and adaptive["info"]["evaluations"] % 6 == 2


def test_weights_are_the_ones_asked_for(plain, tmp_path):
    got = {ema: drawn(plain, tmp_path, f"ema={ema}")["samples"] for ema in ("true", "false", "0.5", "0.99")}
    np.testing.assert_array_equal(got["true"], got["0.5"])
    assert not np.array_equal(got["true"], got["false"]) and not np.array_equal(got["0.5"], got["0.99"])
    np.testing.assert_array_equal(got["false"], load_run(plain, ema=False).samples(50))


def test_data_that_define_their_own_noise_give_it(tmp_path):
    run = trained(tmp_path / "r", "dataloaders=gaussians_to_moons", "evaluation=none", "eval_every=null")
    assert not normal_noise(load_run(run, data=False).config)
    noise = drawn(run, tmp_path, "num_samples=400")["noise"]
    np.testing.assert_allclose(np.hypot(*noise.T).mean(), 5.0, atol=0.2)  # eight Gaussians on a circle of radius 5


def test_labels_are_the_one_asked_for_or_rows_of_the_data(labelled, tmp_path):
    got = drawn(labelled, tmp_path, "label=3")
    assert got["label"].dtype == np.int32 and set(got["label"]) == {3} and got["samples"].shape == (50, 8, 8, 1)
    got = drawn(labelled, tmp_path, "num_samples=2500", "solver.steps=1")["label"]  # more than the data's 1500
    assert got.shape == (2500,) and set(got) == set(range(10))


def test_labels_have_the_datas_proportions():
    data = ArraySource({"x": np.zeros((8, 2)), "label": np.array([0, 0, 0, 0, 0, 0, 2, 2])}, classes=3)
    objective = FlowMatching(conditions=["label"])
    run = Run(None, MLP([2], hidden=4, depth=1, classes=3), objective, Pipeline(data, batch_size=8))
    got = labels(run, 4000, 0, None)["label"]
    np.testing.assert_allclose(np.bincount(got, minlength=3) / 4000, [0.75, 0, 0.25], atol=0.03)


def test_labels_are_uniform_and_it_says_so_where_the_data_are_missing(labelled, tmp_path, monkeypatch, capsys):
    known = drawn(labelled, tmp_path, "label=3")["samples"]
    monkeypatch.setattr("dataloaders.digits.Digits.__init__", missing)
    np.testing.assert_array_equal(drawn(labelled, tmp_path, "label=3")["samples"], known)  # needs no data
    assert "note" not in capsys.readouterr().err
    got = drawn(labelled, tmp_path, "num_samples=2000", "solver.steps=1")["label"]
    assert "uniform over 10 classes" in capsys.readouterr().err
    np.testing.assert_allclose(np.bincount(got, minlength=10) / 2000, 0.1, atol=0.03)


def missing(self, part):
    raise UsageError("the digits are gone.")


def test_guidance_is_the_extrapolation_from_no_class_and_its_default_the_runs(labelled, tmp_path):
    one_step = ["label=3", "solver=euler", "solver.steps=1"]
    given = drawn(labelled, tmp_path, *one_step)["samples"]
    none = drawn(labelled, tmp_path, "label=-1", *one_step[1:])["samples"]
    guided = drawn(labelled, tmp_path, *one_step, "guidance=2.0")["samples"]
    np.testing.assert_allclose(guided, none + 2 * (given - none), atol=1e-5)
    np.testing.assert_array_equal(drawn(labelled, tmp_path, *one_step, "guidance=1.0")["samples"], given)


def test_guidance_is_refused_without_labels_and_noted_without_dropout(plain, labelled, capsys, monkeypatch):
    assert sample.main([f"checkpoint={plain}", "guidance=2.0"]) == 2
    assert "need conditions to hold 'label'" in capsys.readouterr().err
    assert opened(str(labelled), True, None, {}, 2.0).objective.guidance == 2.0
    assert capsys.readouterr().err == ""
    run = load_run(labelled, data=False)
    run.config.loss.label_dropout = 0.0
    monkeypatch.setattr("scripts.sampling.load_run", lambda *given, **more: run)
    opened(str(labelled), True, None, {}, 2.0)
    assert "without label_dropout" in capsys.readouterr().err


def test_pictures_of_points_and_images(plain, labelled, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "FRAMES", 6)
    drawn(plain, tmp_path, f"picture={tmp_path}/p/points.png", f"field={tmp_path}/p/field.png",
          f"trajectories={tmp_path}/p/flow.gif", "solver=dopri5")  # fmt: skip
    drawn(labelled, tmp_path, f"picture={tmp_path}/p/images.png", f"trajectories={tmp_path}/p/strip.png")
    assert {path.name for path in (tmp_path / "p").iterdir()} == {
        "points.png", "field.png", "flow.gif", "images.png", "strip.png"
    }  # fmt: skip
    with Image.open(tmp_path / "p" / "flow.gif") as moving:
        assert moving.n_frames == 7  # type: ignore[attr-defined]
    with Image.open(tmp_path / "p" / "strip.png") as strip:
        assert strip.size == (3 * 66 + 2, 8 * 66 + 2)  # noise, middle and sample of eight images


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        (sample, ["num_sample=3"], "nearest: num_samples"),
        (sample, ["num_samples=many"], "num_samples: Value 'many'"),
        (sample, ["num_samples=0"], "num_samples must be at least 1, got 0"),
        (sample, ["seed=-1"], "seed must be at least 0, got -1"),
        (sample, ["solver=huen"], "nearest: heun"),
        (sample, ["solver.step=3"], "there is no key 'step' in solver; nearest: steps"),
        (sample, ["solver.steps=0"], "steps must be at least 1, got 0"),
        (sample, ["solver.steps=many"], "steps must be int, got 'many'"),
        (sample, ["evaluation.count=3"], "there is no key 'evaluation.count'"),
        (sample, ["--fast"], "can't read '--fast'"),
        (sample, ["ema=0.9"], "no EMA of decay 0.9; it keeps [0.5, 0.99]"),
        (sample, ["ema=maybe"], "got 'maybe'"),
        (sample, ["label=3"], "unconditional"),
        (sample, ["out=samples.csv"], "ends in .npz"),
        (sample, ["device=tpu"], "device must be auto, gpu or cpu"),
        (evaluate, ["evaluation=point"], "nearest: points"),
        (evaluate, ["evaluation.counts=3"], "nearest: count"),
        (evaluate, ["evaluation.count=300000"], "lower evaluation.count"),
        (evaluate, ["num_samples=3"], "there is no key 'num_samples'"),
        (evaluate, ["ema=0.9"], "no EMA of decay 0.9"),
        (evaluate, ["out=metrics.csv"], "ends in .json"),
    ],
    ids=str,
)
def test_mistakes_cost_one_sentence_and_status_2(plain, script, arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert script.main([f"checkpoint={plain}", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", [sample, evaluate], ids=["sample", "evaluate"])
def test_a_missing_checkpoint_is_named_and_help_teaches(script, tmp_path, capsys):
    assert script.main([f"checkpoint={tmp_path}/nowhere"]) == 2
    assert f"{tmp_path}/nowhere" in capsys.readouterr().err
    assert script.main(["device=cpu"]) == 2
    assert "checkpoint is missing" in capsys.readouterr().err
    assert script.main(["--help"]) == 0
    keys = [line.split("=")[0].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert set(script.Settings.__dataclass_fields__) <= set(keys)


def test_label_outside_the_classes_is_refused(labelled, capsys):
    assert sample.main([f"checkpoint={labelled}", "label=10"]) == 2
    assert "0..9" in capsys.readouterr().err


def test_paths_are_never_retyped():
    given, changes = parse(
        ["checkpoint=1.10", "out=1e3.npz", "solver.rtol=1e-3", "solver.grid=cosine"], sample.Settings
    )
    assert (given.checkpoint, given.out) == ("1.10", "1e3.npz")
    assert changes == {"solver.rtol": 1e-3, "solver.grid": "cosine"}


def test_evaluate_finds_what_the_run_found_and_leaves_it_alone(plain, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in plain.rglob("*")}
    out = tmp_path / "metrics.json"
    assert evaluate.main([f"checkpoint={plain}", f"out={out}", "device=cpu"]) == 0
    record, summary = json.loads(out.read_text()), json.loads((plain / "summary.json").read_text())
    expected = {k: v for k, v in summary["metrics"].items() if k.startswith("eval/")}
    assert {"eval/loss", "eval/w2_30", "eval/w2_30_floor"} < expected.keys()
    assert record["metrics"] == pytest.approx(expected, rel=1e-6)
    assert record["step"] == 20 and record["evaluation"]["count"] == 60
    printed = capsys.readouterr().out
    assert all(name in printed for name in expected if not name.endswith("_floor"))
    assert {path: path.stat().st_mtime_ns for path in plain.rglob("*")} == before


def test_evaluate_takes_another_evaluation_solver_weights_and_seed(plain, tmp_path):
    def found(*more):
        out = tmp_path / "metrics.json"
        assert evaluate.main([f"checkpoint={plain}", f"out={out}", "device=cpu", *more]) == 0
        return json.loads(out.read_text())["metrics"]

    own = found()
    assert set(found("evaluation=none")) == {"eval/loss"}
    assert found("ema=0.5") == found("ema=true") == own
    for more in ("ema=false", "solver=heun", "seed=7"):
        assert found(more)["eval/energy_distance_60"] != own["eval/energy_distance_60"]
    few = found("evaluation=points", "evaluation.count=40", "evaluation.metrics=[mmd2_rbf]", "evaluation.floor_pairs=0")
    assert few.keys() == {"eval/loss", "eval/mmd2_rbf_40"}
    by_solver = ["evaluation=gaussians_to_moons", "evaluation.count=30"]
    assert {"eval/emd_30/euler1", "eval/emd_30/dopri5"} < found(*by_solver).keys()
    assert "eval/emd_30" in found(*by_solver, "solver=heun", "solver.steps=3")


def test_evaluate_ema_false_judges_the_plain_weights(plain, tmp_path):
    out = tmp_path / "metrics.json"
    evaluate.main([f"checkpoint={plain}", f"out={out}", "ema=false", "device=cpu"])
    run = load_run(plain, ema=False)
    from evaluation.distances import PointDistances

    expected = PointDistances(count=60, exact_count=30, floor_pairs=1)(run)
    measured = json.loads(out.read_text())["metrics"]
    assert {k.removeprefix("eval/"): v for k, v in measured.items() if k != "eval/loss"} == pytest.approx(expected)


def test_both_run_as_files_from_any_folder_and_import_no_matplotlib(plain, tmp_path):
    for script in ("sample", "evaluate"):
        command = [sys.executable, "-X", "importtime", ROOT / "scripts" / f"{script}.py", f"checkpoint={plain}"]
        command += ["device=cpu", *(["evaluation=none"] if script == "evaluate" else [])]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "matplotlib" not in done.stderr and "trackio" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"]
    assert mx.default_device() == mx.Device(mx.cpu)
