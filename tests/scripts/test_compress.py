"""Compressed runs: evaluation and samples are those of the compressed weights, from the same draws."""

import json
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import launcher
from runtime.quantized import QuantizedLinear
from runtime.slots import snapshot
from scripts import compress, evaluate, sample
from scripts.compose import compose
from training import checkpoint
from training.experiment import evaluate_run, load_run

SMALL = [
    "run_name=r", "max_steps=4", "traces.progress.quiet=true", "device=cpu", "trackio.enabled=false", "seed=3",
    "eval_every=null", "traces.evaluation.pictures=null", "dataloaders.eval_data.size=256", "compile=false",
    "evaluation.count=50", "batch_size=64", "model.hidden=64", "model.depth=3", "loss=meanflow", "solver=average",
    "optimizer.ema=[0.9,0.1]",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compress") / "r"
    launcher.train(compose(SMALL), folder, SMALL)
    return folder


def compressed_by(run, out, *more):
    assert compress.main([f"checkpoint={run}", f"out={out}", "device=cpu", *more]) == 0
    return out


@pytest.mark.parametrize("more", [["bits=4", "group=32"], ["prune=0.8"], ["bits=8", "prune=0.5", "ema=0.1"]], ids=str)
def test_a_compressed_file_is_evaluated_as_a_run_of_its_weights(run, tmp_path, more, capsys):
    """Against a checkpoint in which the very numbers that the small file stands for are written in full."""
    out = compressed_by(run, tmp_path / "small.safetensors", *more)
    printed = capsys.readouterr().out.splitlines()
    small = load_run(out)
    model: Any = small.model
    taken = "bits=4" in more or "bits=8" in more
    assert isinstance(model.layers[0], QuantizedLinear) == taken
    arrays, meta = checkpoint.load(checkpoint.find(run))
    whole = dict(arrays)
    for path in snapshot(load_run(run).models):
        name = path.removeprefix("model.")
        owner: Any = small.model
        for part in name.split("."):
            owner = owner[int(part)] if isinstance(owner, list) else getattr(owner, part)
        assert owner.shape == arrays[f"models.{path}"].shape
        for place in [p for p in arrays if p == f"models.{path}" or p.endswith(f".{name}") and ".ema." in p]:
            whole[place] = mx.array(owner)
    checkpoint.save(tmp_path / "whole.safetensors", whole, meta)
    wanted, _ = evaluate_run(tmp_path / "whole.safetensors")
    got, _ = evaluate_run(out)
    assert got.keys() == wanted.keys() and "eval/loss" in got and any("energy" in name for name in got)
    plain, _ = evaluate_run(run, 0.1 if "ema=0.1" in more else True)
    for name, value in wanted.items():
        assert got[name] == pytest.approx(value, rel=1e-4), name
    assert abs(got["eval/loss"] - plain["eval/loss"]) > 1e-6
    rows = {line.split()[0]: [float(number) for number in line.split()[1:]] for line in printed[2:]}
    for name, (before, after, change) in rows.items():
        assert before == pytest.approx(plain[name], rel=1e-4) and after == pytest.approx(got[name], rel=1e-4)
        assert change == pytest.approx(got[name] - plain[name], rel=1e-2, abs=1e-6)
    assert rows.keys() == {name for name in got if not name.endswith("_floor")}


def test_other_scripts_open_the_file_and_it_is_small(run, tmp_path, capsys):
    out = compressed_by(run, tmp_path / "small.safetensors", "bits=8", "evaluate=false")
    said = capsys.readouterr().out
    before = sum(array.nbytes for array in snapshot(load_run(run).models).values())
    size = out.stat().st_size
    assert (
        f"{before / 1e6:.3f} MB of weights before, {size / 1e6:.3f} MB after" in said and "3 layers in 8 bits" in said
    )
    assert load_run(out).folder == tmp_path and load_run(checkpoint.find(run)).folder == run
    assert said.count("\n") == 1 and size - len(json.dumps(checkpoint.metadata(out))) - 3_000 < 0.4 * before
    assert sample.main([f"checkpoint={out}", f"out={tmp_path}/s.npz", "num_samples=20", "device=cpu"]) == 0
    with np.load(tmp_path / "s.npz") as stored:
        np.testing.assert_array_equal(stored["samples"], load_run(out).samples(20))
        assert np.abs(stored["samples"] - load_run(run).samples(20)).max() > 1e-6
    assert evaluate.main([f"checkpoint={out}", "device=cpu", "evaluation.count=20"]) == 0


def test_a_pruned_file_holds_each_number_once_and_a_bit_for_each_zero(run, tmp_path, capsys):
    out = compressed_by(run, tmp_path / "pruned.safetensors", "prune=0.75", "evaluate=false")
    assert "0.75 of the weights of 4 arrays set to 0" in capsys.readouterr().out
    weights = [np.array(a) for p, a in snapshot(load_run(out).models).items() if p.endswith("weight")]
    total = sum(weight.size for weight in weights)
    assert sum((weight == 0).sum() for weight in weights) == round(0.75 * total)
    stored = checkpoint.load(out)[0]
    assert sum(array.size for name, array in stored.items() if name.endswith("#values")) == total - round(0.75 * total)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing was asked for; needed: bits=8, prune=0.5 or both"),
        (["bits=16"], "bits must be one of (2, 3, 4, 5, 6, 8)"),
        (["bits=8", "out=small.npz"], "ends in .safetensors"),
        (["prune=2"], "prune must be a share of the weights above 0 and below 1, got 2.0"),
        (["bits=8", "ema=0.7"], "keeps no EMA of decay 0.7"),
        (["bits=8", "group=128"], "no layer of this run can be quantised"),
    ],
    ids=str,
)
def test_mistakes_cost_one_sentence(run, arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert compress.main([f"checkpoint={run}", "out=small.safetensors", "device=cpu", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error and not list(tmp_path.iterdir())


def test_a_compressed_file_is_not_compressed_again_and_has_no_averages(run, tmp_path, capsys):
    out = compressed_by(run, tmp_path / "small.safetensors", "prune=0.5", "evaluate=false")
    for command, said in ((lambda: compress.main([f"checkpoint={out}", "bits=8"]), "is compressed already"),
                          (lambda: evaluate.main([f"checkpoint={out}", "ema=0.9"]), "one set of weights"),
                          (lambda: sample.main([f"checkpoint={out}", "ema=0.9"]), "one set of weights")):  # fmt: skip
        capsys.readouterr()
        assert command() == 2 and said in capsys.readouterr().err
    keys = [line.split("=")[0].strip() for line in str(compress.__doc__).splitlines() if line.startswith("  ")]
    assert set(compress.Settings.__dataclass_fields__) - {"solver"} <= set(keys)
