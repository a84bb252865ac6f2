"""DCGAN: each model moves by its own loss, noise is drawn anew and alike, the run judges its samples."""

import math

import mlx.core as mx
import numpy as np

from evaluation.fid import Pixels
from examples import dcgan
from runtime.slots import snapshot
from tests.examples.made import clothes, context, steps


def estimator_of(tmp_path, **options):
    return dcgan.get_estimator(batch_size=8, channels=16, root=clothes(tmp_path), **options)


def held(models, name):
    return {path: np.array(leaf) for path, leaf in snapshot(models[name]).items()}


def test_both_models_move_each_on_its_own_loss(tmp_path):
    estimator = estimator_of(tmp_path)
    models = estimator.network.models
    before = {name: held(models, name) for name in models}
    assert list(models) == ["generator", "discriminator"]
    leaves = estimator.train_step.leaves
    assert {path.split(".")[0] for path in leaves["gloss"]} == {"generator"}
    assert {path.split(".")[0] for path in leaves["dloss"]} == {"discriminator"}
    _, (first, *_) = steps(estimator, 3)
    assert abs(first["gloss"].item() - math.log(2)) < 0.1 and abs(first["dloss"].item() - 2 * math.log(2)) < 0.2
    for name in models:  # leaves and the statistics of batch norms
        assert all((leaf != before[name][path]).any() for path, leaf in held(models, name).items())


def test_losses_are_the_binary_cross_entropies():
    real, made = np.array([[2.0], [-1.0]], np.float32), np.array([[0.5], [-3.0]], np.float32)
    d = dcgan.DLoss(("true", "fake"), "dloss").forward([mx.array(real), mx.array(made)], context())
    g = dcgan.GLoss("fake", "gloss").forward(mx.array(made), context())
    assert math.isclose(float(d), np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(made)).mean(), rel_tol=1e-5)
    assert math.isclose(float(g), np.log1p(np.exp(-made)).mean(), rel_tol=1e-5)


def test_noise_depends_on_the_batch_number_alone(tmp_path):
    one, two = (list(estimator_of(tmp_path).pipeline.get_results(num_steps=2)) for _ in range(2))
    np.testing.assert_array_equal(one[1]["z"], two[1]["z"])
    assert one[0]["z"].shape == (8, 100) and abs(one[0]["z"].std() - 1) < 0.1
    assert not np.isin(one[0]["z"], one[1]["z"]).any() and len(np.unique(one[0]["z"])) > 790
    assert -1 <= one[0]["x"].min() < -0.9 and 0.6 < one[0]["x"].max() <= 1


def test_the_discriminator_learns_first(tmp_path):
    estimator = estimator_of(tmp_path, learning_rate=2e-3)
    _, outs = steps(estimator, 7)
    assert outs[-1]["dloss"].item() < 0.85 * outs[0]["dloss"].item()


def test_the_run_judges_and_draws(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dcgan, "EfficientNetLite0", Pixels)
    picture = tmp_path / "samples.png"
    dcgan.fastestimator_run(1, 8, channels=16, train_steps_per_epoch=1, count=16, picture=str(picture),
                            root=clothes(tmp_path))  # fmt: skip
    assert "KID-EffLite0, 16 images:" in capsys.readouterr().out and picture.is_file()
