"""MixUp and CutMix beside FastEstimator's images and labels for given draws."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from ops.augment import mixing
from ops.augment.mixing import CutMixBatch, MixUpBatch
from tests.ops.augment.by_hand import context

FIXTURE = json.loads(Path(__file__).with_name("fixtures_mixing.json").read_text())
KEYS = ["x", "y"]
IMAGES = np.array(FIXTURE["images"], np.float32)[..., None]
HOT = np.eye(3, dtype=np.float32)[FIXTURE["labels"]]


def mixed(op):
    """Images (B, H, W) and labels after `op`; the labels given as integers make no difference."""
    for labels in (HOT, np.array(FIXTURE["labels"])):
        out = op({"x": mx.array(IMAGES), "y": mx.array(labels)}, context())
        images, found = np.array(out["x"])[..., 0], np.array(out["y"])
    return images, found


@pytest.mark.parametrize("case", FIXTURE["mixup"], ids=[str(case["lambda"]) for case in FIXTURE["mixup"]])
def test_mixups_images_are_fastestimators_and_labels_follow_the_images_where_its_labels_take_lambda_raw(
    case, monkeypatch
):
    lambdas = np.reshape(np.array(case["lambda"], np.float32), -1)
    monkeypatch.setattr(mixing, "beta_draws", lambda alpha, shape, key: mx.array(lambdas).reshape(shape))
    images, labels = mixed(MixUpBatch(KEYS, KEYS, shared_beta=case["shared_beta"], num_classes=3))
    np.testing.assert_allclose(images, case["x"], atol=1e-6)
    part = np.broadcast_to(np.maximum(lambdas, 1 - lambdas), 4)[:, None]  # what the images were mixed by
    np.testing.assert_allclose(labels, part * HOT + (1 - part) * np.roll(HOT, 1, 0), atol=1e-6)
    raw = np.broadcast_to(lambdas, 4)
    np.testing.assert_allclose(case["y"], raw[:, None] * HOT + (1 - raw[:, None]) * np.roll(HOT, 1, 0), atol=1e-6)
    agree = raw >= 0.5
    np.testing.assert_allclose(labels[agree], np.array(case["y"])[agree], atol=1e-6)


@pytest.mark.parametrize("case", FIXTURE["cutmix"], ids=[str(case["box"]) for case in FIXTURE["cutmix"]])
def test_cutmixs_box_images_and_labels_are_fastestimators_and_the_input_stays(case, monkeypatch):
    monkeypatch.setattr(mixing, "beta_draws", lambda alpha, shape, key: mx.full(shape, case["lambda"]))
    centre = mx.array(case["centre"])[:, None]
    monkeypatch.setattr(mx.random, "uniform", lambda shape, key: mx.broadcast_to(centre, shape))
    op = CutMixBatch(KEYS, KEYS, num_classes=3)
    drawn = op.draw(IMAGES.shape, mx.random.key(0))
    assert {name: np.array(drawn[name]).item() for name in case["box"]} == case["box"]
    before = IMAGES.copy()
    images, labels = mixed(op)
    np.testing.assert_allclose(images, case["x"], atol=1e-6)
    np.testing.assert_allclose(labels, case["y"], atol=1e-6)
    np.testing.assert_array_equal(IMAGES, before)
    box = case["box"]  # theirs writes into the batch's own array wherever there is a box
    assert case["writes into its input"] == ((box["right"] - box["left"]) * (box["bottom"] - box["top"]) > 0)
