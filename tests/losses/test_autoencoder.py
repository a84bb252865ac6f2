"""The autoencoder's loss against one by hand, its divergence against a closed form, and that it trains."""

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

from losses.autoencoder import AutoencoderLoss, divergence
from models.autoencoder import Autoencoder
from runtime.errors import UsageError
from tests.losses.closed_form import CTX
from tests.models.test_autoencoder import images, small


def test_divergence_against_the_integral():
    """KL = E log(p / q) under N(m, s^2), by a fine sum over the line; a row's latents add up."""
    grid = np.linspace(-30, 30, 200_001)
    total = 0.0
    for mean, std in ((0.7, 0.3), (-1.5, 2.0)):
        log_p = -(((grid - mean) / std) ** 2) / 2 - np.log(std)
        p = np.exp(log_p) / np.sqrt(2 * np.pi)
        total += (p * (log_p + grid**2 / 2)).sum() * (grid[1] - grid[0])
    mean, logvar = mx.array([[[0.7], [-1.5]]]), 2 * mx.log(mx.array([[[0.3], [2.0]]]))
    assert divergence(mean, logvar).shape == (1,)
    assert abs(divergence(mean, logvar).item() / total - 1) < 1e-5
    assert divergence(mx.zeros((2, 3)), mx.zeros((2, 3))).tolist() == [0, 0]


def test_loss_by_hand_and_its_mask():
    model, x = small(), images(3)
    objective, context = AutoencoderLoss(kl_weight=0.5), replace(CTX, mode="eval")
    loss, extra = objective(model, {"x": x}, context)
    mean, std = (np.array(v, np.float64) for v in model.encode(x))
    kl = (mean**2 / 2 + std**2 / 2 - 0.5 - np.log(std)).sum(axis=(1, 2, 3))
    squares = ((np.array(model(x)[0]) - np.array(x)) ** 2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(np.array(extra["kl"]), kl, rtol=1e-4)
    np.testing.assert_allclose(np.array(extra["mse"]), squares / 288, rtol=1e-4)
    rows = (squares + 0.5 * kl) / 288
    assert abs(loss.item() / rows.mean() - 1) < 1e-4
    masked = objective(model, {"x": x, "mask": mx.array([1.0, 0.0, 1.0])}, context)[0].item()
    assert abs(masked / rows[[0, 2]].mean() - 1) < 1e-4
    drawn = [objective(model, {"x": x}, replace(CTX, key=mx.random.key(k)))[0].item() for k in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and drawn[0] != loss.item()


def test_a_few_steps_beat_the_mean_image():
    """Dark and bright halves in mixed strengths: 60 steps get below half of the variance of the pixels."""
    strength = np.random.default_rng(0).normal(size=(16, 2, 1, 1))
    halves = np.sign(np.arange(8) - 3.5)
    mixture = strength[:, :1] * halves[:, None] + strength[:, 1:] * halves
    x = mx.array(np.tanh(mixture).reshape(16, 8, 8, 1).astype(np.float32))
    mx.random.seed(0)
    model = Autoencoder([8, 8, 1], latent=2, channels=[8, 16])
    objective, optimizer = AutoencoderLoss(kl_weight=1e-3), optim.Adam(1e-2)
    step = nn.value_and_grad(model, lambda m, key: objective(m, {"x": x}, replace(CTX, key=key))[0])
    for key in mx.random.split(mx.random.key(0), 60):
        optimizer.update(model, step(model, key)[1])
        mx.eval(model.state, optimizer.state)
    mse = objective(model, {"x": x}, replace(CTX, mode="eval"))[1]["mse"].mean().item()
    assert mse < 0.4 * x.var(axis=0).mean().item()


def test_wrong_weight_and_wrong_network():
    with pytest.raises(UsageError, match="kl_weight must be at least 0, got -1"):
        AutoencoderLoss(-1)
    with pytest.raises(UsageError, match="model=autoencoder; Linear has none"):
        AutoencoderLoss().check(nn.Linear(2, 2))
    AutoencoderLoss().check(small())
