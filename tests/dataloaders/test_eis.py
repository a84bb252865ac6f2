"""Spectra: what a row says is recomputed from its circuit; priors, known parameters, lengths and mistakes."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from dataloaders.eis import Spectra
from domains.eis import canonical, default_frequencies, impedance
from domains.eis_truths import from_unit, ground_truths, to_unit
from runtime.errors import UsageError
from runtime.instantiate import build

CONFIGS = Path(__file__).parents[2] / "configs"


def rows(count: int = 400, seed: int = 0, **options) -> dict[str, np.ndarray]:
    return Spectra(**options).take(np.arange(count), np.random.default_rng(seed))


def circuits(places: np.ndarray) -> np.ndarray:
    return from_unit(places / 11)


@pytest.mark.parametrize("topology", ["series", "parallel"])
def test_a_row_is_its_circuits_noisy_impedance_and_says_how_far_another_is(topology):
    found = rows(topology=topology, noise=0.01)
    z = found["x"][..., 1] + 1j * found["x"][..., 2]
    clean = impedance(circuits(found["target"]), default_frequencies(), topology)
    error = (z - clean) / np.abs(clean)
    assert error.real.std() == pytest.approx(0.01, rel=0.03) and error.imag.std() == pytest.approx(0.01, rel=0.03)
    other = impedance(circuits(found["candidate"]), default_frequencies(), topology)
    want = np.log10(np.abs(other - z).mean(axis=1) / np.abs(z).mean(axis=1))
    np.testing.assert_allclose(found["residual"], want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["x"][0, :, 0], np.log10(default_frequencies()), rtol=1e-6)


def test_candidates_come_as_near_as_the_noise_and_behind_the_spectrums_own_rs():
    found = rows(4000, topology="parallel", noise=0.01, rs=300.0)
    distance = np.abs(found["candidate"] - found["target"]).max(axis=1)
    assert 0.4 < (distance < 5).mean() < 0.6 and (distance < 0.02).sum() > 100
    assert found["residual"][distance < 0.005].max() < np.log10(0.03)  # noise of 1% on both parts is 1.25% of |Z|
    steps = rows(4000, prior="grid")
    whole = (steps["candidate"] == np.rint(steps["candidate"])).all(axis=1)
    assert 0.45 < whole.mean() < 0.55
    assert np.abs(steps["candidate"] - steps["target"])[whole].max() <= 3


def test_priors():
    wide = rows(4000)["target"]
    assert wide.min() < -0.45 and wide.max() > 11.45 and np.allclose(wide.mean(axis=0), 5.5, atol=0.25)
    on_grid = rows(prior="grid")["target"]
    np.testing.assert_array_equal(on_grid, np.rint(on_grid))
    few = rows(prior="truths", truths=7)["target"]
    assert len(np.unique(few, axis=0)) == 7
    fresh = Spectra(prior="truths", truths=7, seed=1).take(np.arange(400), np.random.default_rng(0))["target"]
    assert not set(map(tuple, few)) & set(map(tuple, fresh))


def test_training_and_held_out_rows_share_no_ground_truth():
    """Of the configured data: every circuit of a row is one of its set's, and no set has another's, nor its twin."""
    config = OmegaConf.create(
        {"seed": 3, "dataloaders": OmegaConf.load(CONFIGS / "dataloaders" / "eis.yaml")}
    ).dataloaders
    config.train_data.prior, config.train_data.truths, config.eval_data.size = "truths", 60, 2000
    pipeline, found = build(config), {}
    for mode, seed in (("train", 0), ("eval", 1)):
        batches = islice(pipeline.batches(mode), 4)
        seen = np.unique(np.concatenate([batch["target"] for batch in batches]), axis=0)
        want = to_unit(ground_truths(60, seed=seed)) * 11
        np.testing.assert_allclose(seen, want[np.lexsort(want.T[::-1])], atol=1e-5)
        found[mode] = set(map(tuple, np.round(np.log(canonical(circuits(seen))), 3)))
    assert len(found["train"]) == len(found["eval"]) == 60 and not found["train"] & found["eval"]


def test_known_parameters_have_their_chances_and_are_the_targets():
    found = rows(4000, known=(0.25, 0, 0, 0.75))
    number = found["known_mask"].sum(axis=1)
    assert set(number) == {0, 3} and (number == 3).mean() == pytest.approx(0.75, abs=0.03)
    np.testing.assert_array_equal(found["known"], found["target"] * found["known_mask"])
    assert found["known_mask"].mean(axis=0) == pytest.approx(0.45, abs=0.03)


def test_lengths_ranges_blanks_and_repetition():
    options = {"points": (5, 40), "low": 0.1, "high": 1e5, "blank": 0.2, "noise": (0.001, 0.05), "rs": 50.0}
    found = rows(2000, kinds=("modulus", "proportional", "phase"), **options)
    present = found["x"][..., 3]
    number = present.sum(axis=1)
    assert (number == 0).mean() == pytest.approx(0.2, abs=0.03)
    assert number[number > 0].min() == 5 and number.max() == 40
    assert (found["x"][present == 0] == 0).all()
    seen = found["x"][present > 0][:, 0]
    assert seen.min() >= -1 - 1e-6 and seen.max() <= 5 + 1e-6
    again = rows(2000, kinds=("modulus", "proportional", "phase"), **options)
    for name, value in found.items():
        np.testing.assert_array_equal(value, again[name])
        assert np.isfinite(value).all()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"topology": "ring"}, "series or parallel"),
        ({"points": (9, 5)}, "least <= most points"),
        ({"noise": (0.1, 0.01)}, "least <= most noise"),
        ({"noise": (0.0, 0.01)}, "0 < least"),
        ({"kinds": ["white"]}, "white"),
        ({"known": [0.5, 0.4]}, "sum 1"),
        ({"prior": "truths"}, "truths > 0"),
    ],
)
def test_mistakes(options, words):
    with pytest.raises(UsageError, match=words):
        Spectra(**options)
