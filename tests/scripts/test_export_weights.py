"""Weights for PyTorch: the layers of a state dict with PyTorch's outputs come back as that state dict."""

import importlib
import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import launcher
from models.trm import TRM
from runtime.slots import write
from runtime.trees import flatten
from scripts import export_weights
from scripts.compose import compose
from training.experiment import load_run

CASES = json.loads((Path(__file__).parent / "fixtures_export_weights.json").read_text())["cases"]


def array(stored):
    return np.array(stored["values"], np.float32).reshape(stored["shape"])


def channels_last(values):
    """(B, C, ...) -> (B, ..., C)."""
    return np.moveaxis(values, 1, -1)


def as_mlx(values, kind):
    """PyTorch's weight as the layer of that kind wants it."""
    if values.ndim < 3:
        return values
    if kind.startswith("mlx.nn.ConvTranspose"):  # (I, O, *kernel) -> (O, *kernel, I)
        return np.moveaxis(values, 0, -1)
    return channels_last(values)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_weights_with_which_a_layer_equals_pytorchs_are_exported_as_pytorchs(case):
    """Outputs agree to 1e-5, and the exported arrays are the state dict that PyTorch had for its output."""
    options = dict(case["layer"])
    kind = options.pop("_target_")
    module, _, name = kind.rpartition(".")
    layer = getattr(importlib.import_module(module), name)(**options)
    layer.eval()
    state = {name: array(stored) for name, stored in case["weights"].items()}
    write(layer, {name: mx.array(as_mlx(values, kind)) for name, values in state.items()})
    got = np.array(layer(mx.array(channels_last(array(case["x"])))))
    np.testing.assert_allclose(got, channels_last(array(case["y"])), atol=1e-5)
    model = nn.Sequential(layer)  # inside a list
    exported = export_weights.arrays_of(model, "pytorch")
    assert exported.keys() == {f"layers.0.{name}" for name in state}
    for name, values in state.items():
        np.testing.assert_array_equal(np.array(exported[f"layers.0.{name}"]), values)
    kept = export_weights.arrays_of(model, "mlx")
    assert all((kept[path] == leaf).all().item() for path, leaf in flatten(model.parameters()).items())


def test_several_models_are_told_apart_and_embeddings_of_puzzles_go_along():
    two = {"a": nn.Linear(2, 3), "b": nn.Linear(2, 3, bias=False)}
    assert export_weights.named(two, "pytorch").keys() == {"a.weight", "a.bias", "b.weight"}

    puzzles = TRM(vocabulary=6, length=4, hidden=8, heads=2, layers=1, prefix=2, ids=3)
    assert puzzles.table is not None
    exported = export_weights.named({"m": puzzles}, "pytorch")
    np.testing.assert_array_equal(np.array(exported.pop("table.rows")), np.array(puzzles.table.state["rows"]))
    assert exported.keys() == flatten(puzzles.parameters()).keys()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    overrides = [
        "run_name=r", "max_steps=3", "traces.progress.quiet=true", "device=cpu", "compile=false",
        "trackio.enabled=false", "evaluation=none", "eval_every=null", "traces.evaluation.pictures=null",
        "dataloaders=digits", "batch_size=8", "model=cnn", "model.channels=4", "model.blocks=1",
        "optimizer.ema=[0.9,0.1]",
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("export") / "r"
    launcher.train(compose(overrides), folder, overrides)
    return folder


def test_a_runs_averages_or_weights_are_written(run, tmp_path, capsys):
    out = tmp_path / "w.safetensors"
    found = {}
    for ema, meant in (("true", True), ("0.1", 0.1), ("false", False)):
        assert export_weights.main([f"checkpoint={run}", f"out={out}", f"ema={ema}"]) == 0
        found[ema], meta = mx.load(str(out), return_metadata=True)  # type: ignore[misc]
        assert meta == {"format": "pt", "run_name": "r", "step": "3", "ema": ema}
        model = flatten(load_run(run, meant, data=False).model.parameters())
        assert found[ema].keys() == model.keys()
        for name, values in model.items():
            kernel = values.ndim == 4
            np.testing.assert_array_equal(
                np.array(found[ema][name]), np.array(values.transpose(0, 3, 1, 2) if kernel else values)
            )
    assert "w.safetensors: 15 arrays" in capsys.readouterr().out
    assert len({np.array(arrays["leave.weight"]).tobytes() for arrays in found.values()}) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["layout=torch"], "layout must be pytorch or mlx, got 'torch'"),
        (["out=w.pt"], "out must be a file name that ends in .safetensors"),
        (["ema=0.7"], "keeps no EMA of decay 0.7; it keeps [0.9, 0.1]"),
    ],
    ids=str,
)
def test_mistakes_cost_one_sentence(run, arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert export_weights.main([f"checkpoint={run}", "out=w.safetensors", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error and not list(tmp_path.iterdir())
