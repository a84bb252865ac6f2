"""Few-step sampling and every picture of a run with average velocities: points without and images with classes."""

import json
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trackio.sqlite_storage import SQLiteStorage

import launcher
from runtime.errors import UsageError
from scripts import compress, evaluate, pictures, rendering, sample
from scripts.compose import compose
from scripts.sampling import jumps_of, label_of
from solvers.average import Average
from training.experiment import load_run
from visualizers import render
from visualizers.curves import as_series

ROOT = Path(__file__).parents[2]
SMALL = [
    "run_name=r", "epochs=null", "eval_every=null", "save_every=null", "max_steps=4", "traces.progress.quiet=true",
    "device=cpu", "compile=false", "batch_size=16", "loss=meanflow", "solver=average", "evaluation=none",
    "traces.evaluation.pictures_every=2s", "trackio.project=pictures-test", "trackio.log_every=2",
]  # fmt: skip
IMAGES = ["dataloaders=digits", "model=cnn", "model.channels=4", "loss.conditions=[label]", "loss.label_dropout=0.1"]


def trained(folder, *more):
    overrides = [*SMALL, *more]
    launcher.train(compose(overrides), folder, overrides)
    return folder


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("points") / "p", "model.hidden=8", "model.depth=1", "run_name=p")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("images") / "i", *IMAGES, "run_name=i")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(pictures, "FRAMES", 3)


def drawn(run, folder, *more):
    out = folder / "samples.npz"
    assert sample.main([f"checkpoint={run}", f"out={out}", "num_samples=20", "device=cpu", *more]) == 0
    with np.load(out) as stored:
        arrays = dict(stored)
    return {**arrays, "info": json.loads(str(arrays["info"]))}


def test_samples_of_the_training_reach_the_dashboard(points, images):
    """A picture every two steps and at the end, in the run's folder, its record and trackio, for points and images."""
    database = sqlite3.connect(SQLiteStorage.get_project_db_path("pictures-test"))
    query = "SELECT step, metrics FROM metrics WHERE run_id = ?"
    for run in (points, images):
        assert [path.name for path in sorted((run / "samples").iterdir())] == [f"step_0000000{n}.png" for n in (2, 4)]
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        named = {row["step"]: row["samples/0"] for row in rows if "samples/0" in row}
        assert named == {n: f"samples/step_0000000{n}.png" for n in (2, 4)}
        shown = database.execute(query, (json.loads((run / "trackio_run.json").read_text()),))
        media = {step: json.loads(metrics).get("samples/0") for step, metrics in shown}
        assert media.keys() == named.keys()
        assert all(value["_type"] == "trackio.image" and value["file_path"] for value in media.values())
    database.close()


def test_steps_and_jumps_are_those_of_the_average_solver(points, tmp_path):
    run = load_run(points)
    four = drawn(points, tmp_path, "steps=4")
    np.testing.assert_array_equal(four["samples"], run.samples(20, solver=Average(4)))
    assert four["info"]["evaluations"] == 4 == four["info"]["solver"]["steps"]
    even = drawn(points, tmp_path, "jumps=0,0.25,0.5,0.75,1")
    np.testing.assert_array_equal(even["samples"], four["samples"])
    uneven = drawn(points, tmp_path, "jumps=[0,0.6,1]")
    assert uneven["info"]["jumps"] == [0, 0.6, 1] and uneven["info"]["evaluations"] == 2
    assert not np.allclose(uneven["samples"], drawn(points, tmp_path, "steps=2")["samples"])


def test_uniform_labels_are_all_classes_in_turn(images, tmp_path):
    got = drawn(images, tmp_path, "label=uniform")["label"]
    assert got.dtype == np.int32 and got.tolist() == [*range(10), *range(10)]


def test_comparison_and_neighbours(points, images, tmp_path, quick):
    drawn(points, tmp_path, f"comparison={tmp_path}/points.png", "steps=3")
    drawn(images, tmp_path, "label=uniform", f"comparison={tmp_path}/images.png", f"neighbours={tmp_path}/near.png")
    assert Image.open(tmp_path / "points.png").width > 1500 and Image.open(tmp_path / "images.png").width > 1000
    near = np.asarray(Image.open(tmp_path / "near.png"))
    assert near.shape == (10 * 66 + 2, 66 + 2 + 8 + 8 * 66 + 2, 3)
    assert (near[:, 68:76] == 255).all()


def test_compared_samplers_start_from_one_noise_and_the_ode_is_the_networks_own(points):
    run = load_run(points)
    noise = run.pipeline.noise(30, np.random.default_rng(0))
    found = pictures.compared(run, noise, {}, 2)
    one, two, ode = found.values()
    assert list(found)[:2] == ["1 step, NFE 1", "2 steps, NFE 2"]
    np.testing.assert_allclose(one, run.samples(30, solver=Average(1)), atol=1e-6)
    np.testing.assert_allclose(two, run.samples(30, solver=Average(2)), atol=1e-6)
    from solvers.rk4 import RK4

    np.testing.assert_allclose(ode, run.samples(30, solver=RK4(50)), atol=2e-3)


def test_everything_is_drawn_for_every_run(points, images, tmp_path, quick):
    both = {"samples.png", "comparison.png", "denoising.gif", "curves.png"}
    for run, own in ((points, {"paths.png", "field.png", "jumps.png"}), (images, {"neighbours.png"})):
        assert render.main([f"run={run}", f"out={tmp_path / run.name}", "device=cpu"]) == 0
        assert {path.name for path in (tmp_path / run.name).iterdir()} == both | own
        with Image.open(tmp_path / run.name / "denoising.gif") as film:
            assert film.n_frames == 4  # type: ignore[attr-defined]


def test_vis_all_visits_every_run_and_passes_over_what_has_no_pictures(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@" | sed "s|.*run=||"\ncase "$2" in *bad) exit 2;; esac\n')
    python.chmod(0o755)
    for run in ("good", "bad", "sweep/0", "unsaved"):
        (tmp_path / "outputs" / run / "checkpoints").mkdir(parents=True)
        if run != "unsaved":
            (tmp_path / "outputs" / run / "checkpoints" / "step_1.safetensors").write_text("")

    def visited(*folders):
        command = [ROOT / "visualizers" / "vis_all.sh", *folders, "seed=3"]
        return subprocess.run(
            command, capture_output=True, text=True, env={"PYTHON": str(python), "PATH": "/usr/bin:/bin"}
        )

    done = visited(tmp_path / "outputs")
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "2 runs drawn, 1 passed over"
    lines = [line for line in done.stdout.splitlines() if line.endswith("seed=3")]
    assert lines == [f"{tmp_path}/outputs/{run} seed=3" for run in ("bad", "good", "sweep/0")]
    assert visited(tmp_path / "outputs" / "bad").returncode == 1
    several = visited(
        tmp_path / "outputs" / "sweep" / "0", tmp_path / "outputs" / "good", tmp_path / "outputs" / "good"
    )
    lines = [line for line in several.stdout.splitlines() if line.endswith("seed=3")]
    assert lines == [f"{tmp_path}/outputs/{run} seed=3" for run in ("good", "sweep/0")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["jumps=0,0.6"], "rise from 0 to 1, such as 0,0.6,1, got '0,0.6'"),
        (["jumps=0,0.6,0.5,1"], "rise from 0 to 1"),
        (["jumps=a,b"], "rise from 0 to 1"),
        (["steps=0"], "steps must be at least 1, got 0"),
        (["steps=2", "jumps=0,1"], "say the same twice"),
        (["label=cat"], "label must be a class's number, -1 for no class, or uniform, got 'cat'"),
        (["label=uniform"], "unconditional"),
        (["neighbours=n.png"], "neighbours needs images"),
        (["comparison=c.gif"], "ends in .png"),
    ],
    ids=str,
)
def test_mistakes_cost_one_sentence(points, arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sample.main([f"checkpoint={points}", "device=cpu", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error and not list(tmp_path.iterdir())


def test_texts_are_read():
    assert jumps_of("[0, 0.5, 1]") == jumps_of("0,.5,1") == [0, 0.5, 1] and jumps_of(None) is None
    assert (label_of("-1"), label_of("uniform"), label_of(None)) == (-1, "uniform", None)
    keys = [line.split("=")[0].strip() for line in str(render.__doc__).splitlines() if line.startswith("  ")]
    assert set(rendering.Settings.__dataclass_fields__) <= set(keys)


def test_a_class_conditional_run_is_judged_in_one_and_more_steps(images, tmp_path, capsys):
    out = tmp_path / "metrics.json"
    small = [
        "evaluation=digits",
        "evaluation.count=40",
        "evaluation.floor_pairs=1",
        "evaluation.metrics=[fd,precision]",
    ]
    command = [f"checkpoint={images}", "device=cpu", f"out={out}", *small]
    assert evaluate.main([*command, "evaluation.steps=[1,2]"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if "_pixels_40_" in line}
    assert set(rows) == {f"eval/{m}_pixels_40_{n}step" for m in ("fd", "precision") for n in (1, 2)}
    assert all(len(numbers) == 2 for numbers in rows.values())  # the value and its floor
    several = json.loads(out.read_text())["metrics"]
    for steps in (1, 2):  # as the run's own solver set to so many
        assert evaluate.main([*command, "evaluation.steps=[3]", f"solver.steps={steps}"]) == 0
        assert "eval/fd_pixels_40_3step" in json.loads(out.read_text())["metrics"]
        assert evaluate.main([*command, f"solver.steps={steps}"]) == 0
        alone = json.loads(out.read_text())["metrics"]["eval/fd_pixels_40"]
        assert alone == pytest.approx(several[f"eval/fd_pixels_40_{steps}step"], rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run=nowhere"], "there is no run nowhere; needed: a run's folder or a checkpoint"),
        (["run=empty"], "no checkpoint at empty"),
        (["format=avi"], "format must be gif, mp4 or png, got 'avi'"),
        (["kind=feild"], "this run has no picture 'feild'; nearest: field; all: comparison, curves, denoising, field"),
        (["steps=1"], "steps must be at least 2, got 1"),
        (["ema=0.3"], "keeps no EMA of decay 0.3"),
    ],
    ids=str,
)
def test_mistakes_of_rendering_cost_one_sentence(points, arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert render.main([f"run={points}", f"out={tmp_path / 'out'}", "device=cpu", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error and not (tmp_path / "out").exists()


def test_pictures_are_chosen_by_kind_and_format(points, images, tmp_path, quick, capsys):
    for run, kinds, form, names in (
        (points, "denoising,curves", "png", ["denoising.png", "curves.png"]),
        (points, "paths", "gif", ["paths.png"]),
        (images, "denoising", "png", ["denoising.png"]),
    ):
        out = tmp_path / f"{run.name}{form}"
        assert render.main([f"run={run}", f"out={out}", f"kind={kinds}", f"format={form}", "device=cpu"]) == 0
        assert capsys.readouterr().out.split() == [str(out / name) for name in names]
    assert Image.open(tmp_path / "ppng" / "denoising.png").width == 4 * 440  # four moments of a film
    film = Image.open(tmp_path / "ipng" / "denoising.png")
    assert film.size == (4 * (4 * 66 + 2), 4 * 66 + 2)


def test_a_compressed_run_is_drawn_beside_its_file_and_what_has_no_pictures_says_why(points, tmp_path, capsys):
    out = tmp_path / "small" / "c.safetensors"
    assert compress.main([f"checkpoint={points}", "prune=0.5", f"out={out}", "evaluate=false", "device=cpu"]) == 0
    assert render.main([f"run={out}", "kind=field", "device=cpu"]) == 0
    assert (out.parent / "pictures" / "field.png").is_file()
    first = {"train/loss": 2.0, "perf/x": 1.0, "epoch": 1, "eval/a_floor": 1.0, "train/rate": 1.0, "eval/once": 1}
    then = {"train/loss": 1.0, "perf/x": 2.0, "epoch": 2, "eval/a_floor": 2.0, "train/rate": 1.0}
    rows = [{"step": 1, **first}, {"step": 2, **then}]
    assert rendering.curved(as_series(rows)) == ["train/loss"]
    assert rendering.curves(tmp_path / "metrics.jsonl") == {}


def test_a_run_that_has_no_pictures_still_has_its_curves(points, tmp_path, monkeypatch, capsys):
    def none(*_):
        raise UsageError("its samples can't be drawn.")

    monkeypatch.setattr(rendering, "suits", none)
    assert render.main([f"run={points}", f"out={tmp_path / 'out'}", "device=cpu"]) == 0
    assert capsys.readouterr().out.splitlines() == ["note: curves only: its samples can't be drawn.",
                                                   str(tmp_path / "out" / "curves.png")]  # fmt: skip
    monkeypatch.setattr(rendering, "curves", lambda metrics: {})
    assert render.main([f"run={points}", f"out={tmp_path / 'out'}", "device=cpu"]) == 2
    assert "its samples can't be drawn" in capsys.readouterr().err
    monkeypatch.setattr(rendering, "suits", lambda *_: {})
    assert render.main([f"run={points}", f"out={tmp_path / 'out'}", "device=cpu"]) == 2
    assert "no pictures suit its network" in capsys.readouterr().err
