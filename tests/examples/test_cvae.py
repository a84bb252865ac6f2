"""The autoencoder's bounds against integration over the latent number; both halves learn; the baseline by hand."""

import mlx.core as mx
import numpy as np
import pytest

from examples import cvae
from models.cvae import Decoder, Encoder
from tests.examples.made import clothes, context, steps
from tests.training.by_hand import weights

X = mx.array((np.random.default_rng(0).random((3, 8, 8, 1)) < 0.3).astype(np.float32))


def halves():
    """One latent number; a decoder made steep, so that the bounds differ."""
    mx.random.seed(0)
    encoder, decoder = Encoder((8, 8, 1), latent=1), Decoder((8, 8, 1), latent=1, logits=True)
    decoder.conv3.weight = decoder.conv3.weight * 150
    encoder.leave.bias = mx.array([0.3, -1.0])  # of q(z|x): mean and log variance, far from the prior's
    return encoder, decoder


def integrated(decoder, grid=801):
    """-ln p(x) by the trapezoid rule over z in -8..8."""
    z = np.linspace(-8, 8, grid)
    logit = np.array(decoder(mx.array(z[:, None], mx.float32)), np.float64)[:, None]
    seen = (np.array(X)[None] * logit - np.logaddexp(logit, 0)).reshape(grid, 3, -1).sum(-1)
    logs = seen - 0.5 * z[:, None] ** 2 - 0.5 * np.log(2 * np.pi)
    top = logs.max(0)
    return -(top + np.log(np.trapezoid(np.exp(logs - top), z, axis=0)))


def elbo(encoder, decoder, draws):
    """The negative ELBO through the example's ops, a mean over draws, (3,)."""
    op = cvae.NegativeELBO(("ce", "mean", "logvar"), "loss", pixels=64)
    draw = cvae.Reparametrise(("mean", "logvar"), "z")
    mean, logvar = encoder(X)
    total = mx.zeros(3)
    for key in mx.random.split(mx.random.key(1), draws):
        ctx = context(key)
        logit = decoder(draw.forward([mean, logvar], ctx))
        entropy = (mx.logaddexp(logit, 0.0) - X * logit).reshape(3, -1).mean(-1)
        total = total + op.forward([entropy, mean, logvar], ctx)
    return np.array(total / draws)


def test_bounds_enclose_the_integral():
    encoder, decoder = halves()
    want = integrated(decoder)
    loose = elbo(encoder, decoder, 200)
    tight = np.array(cvae.importance_bound(encoder, decoder, X, 500, mx.random.key(0)))
    assert (loose > want + 0.03).all()
    np.testing.assert_allclose(tight, want, atol=0.06)


def test_the_divergence_is_the_integral_of_its_definition():
    z = np.linspace(-12, 12, 20001)
    mean, logvar = np.array([0.3, -1.5]), np.array([-1.0, 0.7])
    q = [
        np.exp(-0.5 * (z - m) ** 2 / np.exp(v)) / np.sqrt(2 * np.pi * np.exp(v))
        for m, v in zip(mean, logvar, strict=True)
    ]
    p = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    want = sum(np.trapezoid(own * np.log(own / p), z) for own in q)
    op = cvae.NegativeELBO(("ce", "mean", "logvar"), "loss", pixels=5)
    given = [mx.array([0.4]), mx.array(mean[None], mx.float32), mx.array(logvar[None], mx.float32)]
    np.testing.assert_allclose(np.array(op.forward(given, context())), 5 * 0.4 + want, rtol=1e-5)


def test_one_draw_of_the_importance_bound_is_an_elbo():
    encoder, decoder = halves()
    keys = mx.random.split(mx.random.key(2), 200)
    single = np.mean([np.array(cvae.importance_bound(encoder, decoder, X, 1, key)) for key in keys], axis=0)
    np.testing.assert_allclose(single, elbo(encoder, decoder, 200), rtol=0.03)


def test_both_halves_learn(tmp_path):
    estimator = cvae.get_estimator(batch_size=16, root=clothes(tmp_path))
    before = {name: weights(model) for name, model in estimator.network.models.items()}
    _, outs = steps(estimator, 12)
    assert outs[-1]["loss"].shape == () and outs[-1]["loss"].item() < 0.9 * outs[0]["loss"].item()
    for name, model in estimator.network.models.items():
        assert all((leaf != before[name][path]).any() for path, leaf in weights(model).items())


def test_the_baseline_knows_each_pixels_rate():
    train = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], np.float32)  # (3 + 1) / 6 and (1 + 1) / 6
    test = np.array([[1, 1], [0, 0]], np.float32)
    want = -(np.log(4 / 6) + np.log(2 / 6) + np.log(2 / 6) + np.log(4 / 6)) / 2
    assert cvae.independent_pixels(train, test) == pytest.approx(want)


def test_the_run_measures_what_the_pipeline_gives(tmp_path, capsys):
    root = clothes(tmp_path, train=100)
    estimator = cvae.get_estimator(batch_size=16, root=root)
    batch = estimator.pipeline.get_results("eval")
    np.testing.assert_array_equal(cvae.binary(estimator.pipeline.source("eval"), 16), batch["x"])
    cvae.fastestimator_run(epochs=1, draws=2, count=16, picture=str(tmp_path / "samples.png"), root=root)
    assert "importance bound, 2 draws" in capsys.readouterr().out and (tmp_path / "samples.png").is_file()
