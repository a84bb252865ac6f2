"""Predictors from runs and from exported files: same predictions, the average's weights, mistakes told."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import launcher
from domains.eis import default_frequencies, impedance
from domains.eis_noise import noisy
from domains.eis_spectrum import Spectrum
from evaluation.eis_proposals import as_input
from runtime.errors import UsageError
from runtime.trees import flatten
from scripts import eis_models
from scripts.compose import compose
from scripts.eis_flow import FlowPredictor
from training import checkpoint
from training.experiment import load_run

SMALL = [
    "run_name=r", "max_steps=2", "traces.progress.quiet=true", "device=cpu", "compile=false", "trackio.enabled=false",
    "batch_size=8", "dataloaders.train_data.size=64", "dataloaders.eval_data.size=16",
]  # fmt: skip
FAST = ["optimizer.learning_rate=0.05", "optimizer.schedule.warmup=1"]  # so that two steps show
NETWORK = ["model.hidden=32", "model.width=8", "model.slots=4", "model.depth=1", "model.mixture=2"]


def trained(folder, *more):
    overrides = [*SMALL, *more]
    launcher.train(compose(overrides), folder, overrides)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("eis") / "r", "experiment=eis_parallel", *NETWORK, *FAST)


def spectrum() -> Spectrum:
    frequencies = default_frequencies(20)
    z = impedance(np.array([460.0, 4820.0, 2210.0, 2e-6, 9e-6]), frequencies, "parallel", 10.0)
    return Spectrum(frequencies, noisy(z, 0.01, np.random.default_rng(0)))


def test_a_run_gives_a_predictor_of_its_averaged_weights_and_of_what_it_was_trained_on(run):
    found = eis_models.load(run, "cpu").predictor
    assert (found.topology, found.prior, found.levels, found.rs) == ("parallel", "continuous", [1e-3, 5e-2], (0.3, 300))
    assert (found.low, found.high) == (1e-2, 1e7)
    average, plain = (load_run(run, ema, data=False).model for ema in (True, False))
    for name, array in flatten(found.model.parameters()).items():
        np.testing.assert_array_equal(np.array(array), np.array(flatten(average.parameters())[name]), name)
    other = eis_models.load(run, "cpu", ema=False).predictor.model
    assert any((a != flatten(average.parameters())[n]).any().item() for n, a in flatten(other.parameters()).items())
    assert flatten(other.parameters()).keys() == flatten(plain.parameters()).keys()


def test_an_exported_file_is_small_and_predicts_alike(run, tmp_path, capsys):
    out = tmp_path / "small.safetensors"
    assert eis_models.command(eis_models.work, "", [f"checkpoint={run}", f"out={out}"]) == 0
    assert "MB" in capsys.readouterr().out
    assert out.stat().st_size < checkpoint.find(run).stat().st_size / 5  # optimizer and averages are left behind
    first, second = eis_models.load(run, "cpu").predictor, eis_models.load(out, "cpu").predictor
    keys = ("topology", "prior", "levels", "rs", "low", "high")
    assert [getattr(first, key) for key in keys] == [getattr(second, key) for key in keys]
    for name, array in flatten(second.model.parameters()).items():
        want = flatten(first.model.parameters())[name]
        np.testing.assert_array_equal(np.array(array), np.array(want).astype(np.float16), name)
    given = list(map(mx.array, as_input([spectrum(), None], [{}, {0: 460.0}], first.model.shape[0])))
    context = [predictor.model.encode(*given) for predictor in (first, second)]
    places = mx.full((2, 5), 4.2)
    densities = [p.model.log_density(c, places)[1] for p, c in zip((first, second), context, strict=True)]
    np.testing.assert_allclose(np.array(densities[0]), np.array(densities[1]), atol=0.02)
    assert np.abs(np.array(densities[0] - densities[1])).max() > 0  # 16 bits
    found = eis_models.load(out, "cpu").predict_missing_parameters({"Rsh": 460.0}, spectrum(), top_k=2)
    assert len(found.circuits) == 2 and found.known == {"Rsh": 460.0}


def test_a_flow_is_a_predictor_too_from_its_run_and_exported(tmp_path):
    run = trained(
        tmp_path / "f", "experiment=eis_series_flow", *NETWORK[:-1], "model.flow_width=16", "model.flow_depth=1"
    )
    eis_models.export(run, tmp_path / "f.safetensors")
    z = impedance(np.array([460.0, 1200.0, 700.0, 3e-7, 5e-6]), default_frequencies(20), "series")
    for given in (run, tmp_path / "f.safetensors"):
        found = eis_models.load(given, "cpu")
        assert isinstance(found.predictor.model, FlowPredictor)
        answer = found.predict_missing_parameters({"Rsh": 460.0}, (default_frequencies(20), z), top_k=2)
        assert answer.known == {"Rsh": 460.0} and answer.circuits[0].values["Ra"] == pytest.approx(1200, rel=0.3)


def test_damaged_foreign_and_missing_files_are_told(run, tmp_path, monkeypatch):
    out = tmp_path / "small.safetensors"
    eis_models.export(run, out)
    out.write_bytes(out.read_bytes()[:-10] + b"0123456789")
    with pytest.raises(UsageError, match="damaged"):
        eis_models.load(out)
    with pytest.raises(UsageError, match="no checkpoint at"):
        eis_models.load(tmp_path / "none.safetensors")
    checkpoint.save(out, {"a": mx.zeros(2)}, {"kind": "other"})
    with pytest.raises(UsageError, match="no run's checkpoint and no exported model of kind eis_predictor"):
        eis_models.load(out)
    monkeypatch.setitem(eis_models.SHIPPED, "series", tmp_path / "gone.safetensors")
    with pytest.raises(UsageError, match="no weights are shipped for series"):
        eis_models.load("series")


def test_runs_of_other_data_and_other_networks_are_refused(run, tmp_path):
    config = load_run(run, data=False).config
    config.dataloaders.train_data._target_ = "dataloaders.points.Moons"
    with pytest.raises(UsageError, match="trained on dataloaders=eis; this one's data are dataloaders.points.Moons"):
        eis_models.trained_on(config)
    with pytest.raises(UsageError, match=r"a network with encode\(...\), .*Module has none"):
        eis_models.usable(nn.Module())
    arguments = [f"checkpoint={run}", f"out={tmp_path / 'weights.npz'}"]
    assert eis_models.command(eis_models.work, "", arguments) == 2


def test_one_noise_level_is_both_ends_and_the_grid_is_told(run):
    config = load_run(run, data=False).config
    config.dataloaders.train_data.noise, config.dataloaders.train_data.prior = 0.01, "grid"
    found = eis_models.trained_on(config)
    assert found["levels"] == [0.01, 0.01] and found["prior"] == "grid"
