"""The augmentation pipe against the official one's numbers, and what must stay exactly as it is."""

import json
from itertools import islice
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from dataloaders.ops.augment import AugmentPipe
from dataloaders.ops.augment import labels as labels_of
from dataloaders.ops.warp import margins, reflected, warped
from dataloaders.pipeline import Pipeline
from dataloaders.source import ImageSource
from losses.flow_matching import FlowMatching
from losses.meanflow import MeanFlow
from runtime.errors import UsageError
from runtime.op import Context
from solvers.average import Average

FIXTURE = json.loads((Path(__file__).parent / "fixtures_augment.json").read_text())
RNG = np.random.default_rng(3)
NOTHING = dict.fromkeys(["xflip", "yflip", "scale", "angle", "stretch", "axis", "shift_x", "shift_y"], 0.0)


def drawn(count: int, **given):
    return {name: np.full(count, given.get(name, 0), np.float32) for name in NOTHING}


def official_draws() -> dict[str, np.ndarray]:
    """Every change alone and in company; the last image is only flipped."""
    k = np.arange(8)
    amounts = {"scale": 1.5, "angle": 3.0, "stretch": 1.5, "axis": 3.0, "shift_x": 1.2, "shift_y": 1.2}
    draws = {"xflip": k % 2, "yflip": k // 2 % 2}
    for j, (name, amount) in enumerate(amounts.items()):
        draws[name] = np.where(((k + j) % 3 == 0) | (k == 7), 0, amount * np.sin(1.7 * (k + 1) * (j + 1)))
    return {name: value.astype(np.float32) for name, value in draws.items()}


def test_equals_the_official_pipe():
    images = np.sin(0.37 * np.arange(960) ** 1.3).reshape(8, 10, 12, 1).astype(np.float32)
    draws = official_draws()
    out = AugmentPipe().changed(images, draws)
    np.testing.assert_allclose(out[:, ::3, ::4, 0], FIXTURE["images"], atol=1e-5)
    np.testing.assert_allclose(out.sum((1, 2, 3)), FIXTURE["sums"], atol=1e-3)
    np.testing.assert_allclose(labels_of(draws), FIXTURE["labels"], atol=1e-6)


def test_doubling_and_halving_alone_give_the_image_back():
    images = RNG.standard_normal((3, 9, 14, 3)).astype(np.float32)
    still = np.broadcast_to(np.eye(3), (3, 3, 3))
    np.testing.assert_allclose(warped(images, still, margins(still, 9, 14)), images, atol=5e-6)


def test_a_shift_by_whole_pixels_mirrors_what_comes_in():
    images = RNG.standard_normal((2, 8, 16, 2)).astype(np.float32)
    out = AugmentPipe(translate_frac_std=0.125).changed(images, drawn(2, shift_x=1.5, shift_y=-2))
    rows, columns = reflected(8, 0, 2)[2:], reflected(16, 3, 0)[:16]  # 2 up, 3 to the right
    np.testing.assert_allclose(out, images[:, rows][:, :, columns], atol=1e-5)


def test_a_turn_goes_from_right_to_up():
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    smooth = np.sin(2 * x + 0.5 + y**2)[None, :, :, None].astype(np.float32)
    out = AugmentPipe().changed(smooth, drawn(1, angle=np.pi / 2))
    np.testing.assert_allclose(out, np.rot90(smooth, 1, axes=(1, 2)), atol=0.05)


def test_flips_and_untouched_images_keep_their_exact_values_in_company():
    images = RNG.standard_normal((3, 8, 8, 3)).astype(np.float32)
    draws = {**drawn(3), "xflip": np.array([1, 0, 0]), "yflip": np.array([1, 0, 0]), "scale": np.array([0, 0, 1.0])}
    before = images.copy()
    out = AugmentPipe().changed(images, draws)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(out[:2], [images[0, ::-1, ::-1], images[1]])
    assert np.abs(out[2] - images[2]).max() > 0.1


def test_every_change_has_its_own_probability_and_columns():
    count = 4000
    for name, columns, share in (("xflip", [0], 0.1), ("yflip", [1], 0.1), ("scale", [2], 0.2), ("aniso", [5, 6], 0.2),
                                 ("rotate_frac", [3, 4], 0.2), ("translate_frac", [7, 8], 0.2)):  # fmt: skip
        only = dict.fromkeys(["xflip", "yflip", "scale", "rotate_frac", "aniso", "translate_frac"], 0.0) | {name: 2.0}
        said = labels_of(AugmentPipe(p=0.1, **only).draw(count, np.random.default_rng(0)))
        assert said.shape == (count, 9) and said.dtype == np.float32
        assert abs((said != 0).any(axis=1).mean() - share) < 0.025
        assert set(np.flatnonzero((said != 0).any(axis=0))) == set(columns)
    flips = labels_of(AugmentPipe(p=0.12).draw(count, np.random.default_rng(1)))[:, 0]
    assert abs(flips.mean() - 0.5) < 0.03  # 1e8 times p is always, and then half


def images_of(count: int) -> ImageSource:
    rng = np.random.default_rng(0)
    return ImageSource(rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8), np.arange(count) % 4)


@pytest.mark.parametrize("workers", [1, 3])
def test_in_a_pipeline(workers):
    def batches(start: int):
        pipeline = Pipeline(images_of(23), images_of(5), batch_size=4, ops=[AugmentPipe(p=0.5)], workers=workers)
        return pipeline, list(islice(pipeline.batches("train", start), 12 - start))

    pipeline, whole = batches(0)
    assert all(b["augment"].shape == (4, 9) and np.isfinite(b["x"]).all() for b in whole)
    for resumed, one in zip(batches(7)[1], whole[7:], strict=True):
        assert all(resumed[key].tobytes() == one[key].tobytes() for key in one)
    for batch in pipeline.batches("eval"):
        assert batch["augment"].shape == (4, 9) and not batch["augment"].any()


class Told(nn.Module):
    """A model that answers with the sum of what was done to each image."""

    def __call__(self, x, times=None, key=None, label=None, augment=None):
        told = mx.zeros((x.shape[0],)) if augment is None else augment.sum(axis=1)
        return mx.zeros_like(x) + told[:, None, None, None]


class Untold(nn.Module):
    def __call__(self, x, times=None, key=None, label=None):
        return x


@pytest.mark.parametrize("kind", [FlowMatching, MeanFlow])
def test_objectives_hand_it_to_the_model_and_sample_without(kind):
    pipeline = Pipeline(images_of(8), batch_size=4, ops=[AugmentPipe(p=1.0)])
    batch = {name: mx.array(value) for name, value in next(pipeline.batches("train")).items()}
    zero = mx.array(0)
    objective, context = kind(conditions=["label", "augment"]), Context("train", mx.random.key(0), zero, zero)
    objective.check(Told())
    told, silent = (
        objective(Told(), {**batch, "augment": given}, context)[1]["velocity_mse"]
        for given in (batch["augment"], mx.zeros((4, 9)))
    )
    assert mx.abs(told - silent).max() > 1e-2
    noise = mx.random.normal((4, 8, 8, 3))
    if kind is MeanFlow:
        assert mx.array_equal(objective.sample(Told(), noise, Average(1), label=batch["label"]), noise)
    with pytest.raises(UsageError, match="augment, which the data do not give .*they give label, x"):
        objective(Told(), {"x": batch["x"], "label": batch["label"]}, context)
    with pytest.raises(UsageError, match="holds augment, which Untold does not take; it takes times, key, label"):
        objective.check(Untold())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 1.5}, "p must lie in 0..1, got 1.5"),
        ({"scale": -1.0}, "scale must be at least 0, got -1.0"),
        ({"aniso_rotate_prob": 2.0}, "aniso_rotate_prob must lie in 0..1"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        AugmentPipe(**options)


def test_only_images_are_augmented():
    with pytest.raises(UsageError, match=r"images \(B, H, W, C\), got 'x' of shape \(4, 2\)"):
        AugmentPipe()({"x": np.zeros((4, 2))}, RNG)
