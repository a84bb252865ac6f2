"""Classifiers' pictures: what is counted as a mistake, where a linear model looks, all of a LeNet's run."""

from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from ops.losses.cross_entropy import CrossEntropy
from ops.model_op import ModelOp
from scripts import class_pictures
from scripts.class_pictures import Classifier, Judged, heat_of
from tests.test_launcher_network import LENET, fashion, train  # noqa: F401  a fixture
from training.network import Network
from training.update import UpdateOp
from visualizers import render

P = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.05, 0.9, 0.05], [0.1, 0.1, 0.8]])


@pytest.mark.parametrize("scores", [P, np.log(P) + 5], ids=["probabilities", "logits"])
@pytest.mark.parametrize("one_hot", [True, False])
def test_mistakes_come_with_the_surest_first(scores, one_hot):
    true = np.array([0, 1, 2, 2])
    judged = Judged(np.eye(3)[true] if one_hot else true, scores, None)
    assert judged.probable == (scores is P)
    np.testing.assert_allclose(judged.p, P, atol=1e-12)
    assert judged.said.tolist() == [0, 0, 1, 2] and judged.mistakes().tolist() == [2, 1]


def test_heat_is_the_largest_channel_over_each_maps_own_quantile():
    gradients = np.random.default_rng(0).normal(size=(2, 10, 10, 3)) * np.array([1, 100]).reshape(2, 1, 1, 1)
    heat = heat_of(gradients)
    sizes = np.abs(gradients).max(-1)
    for one, size in zip(heat, sizes, strict=True):
        np.testing.assert_allclose(one, np.minimum(size / np.quantile(size, 0.99), 1))
    assert not heat_of(np.zeros((1, 4, 4, 1))).any()


class Planes(nn.Module):
    """Scores linear in the pixels; a softmax after them if `probable`."""

    def __init__(self, weight, probable):
        super().__init__()
        self.weight, self.probable = mx.array(weight), probable

    def __call__(self, x):
        scores = x.reshape(len(x), -1) @ self.weight.T
        return mx.softmax(scores, axis=-1) if self.probable else scores


@pytest.mark.parametrize("probable", [True, False])
def test_saliency_of_a_linear_model_is_its_weight_less_their_mean(probable, tmp_path, monkeypatch):
    """d log p_c / dx = w_c - sum_k p_k w_k, with noise of no size."""
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(3, 32)).astype(np.float32), rng.normal(0, 0.1, (6, 4, 4, 2)).astype(np.float32)
    model = Planes(weight, probable)
    network = Network(
        [ModelOp(model, "x", "y_pred"), CrossEntropy(("y_pred", "y"), "loss"), UpdateOp(model, "loss", "sgd")]
    )
    batch = {"x": x, "y": np.array([0, 1, 2, 0, 1, 2]), "mask": np.array([1, 1, 1, 1, 1, 0], np.float32)}
    run = SimpleNamespace(pipeline=SimpleNamespace(batches=lambda mode: iter([batch])))
    found = Classifier(run, SimpleNamespace(network=network), "y", "y_pred")  # type: ignore[arg-type]
    scores = x.reshape(6, -1) @ weight.T
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    said = p.argmax(-1)
    wanted = (weight[said] - p @ weight).reshape(x.shape)
    got = mx.grad(lambda x: mx.take_along_axis(found.scores(x), mx.array(said)[:, None], 1).sum())(mx.array(x))
    found.judged.images = x[:5]
    np.testing.assert_allclose(np.array(got), wanted, atol=1e-4)
    assert len(found.judged.true) == 5  # padding is not judged
    assert not found.seen and set(found.drawings) == {"confusion"}  # two channels are no image
    kept = []
    monkeypatch.setattr(class_pictures, "save_captioned", lambda *args: kept.append(args))
    monkeypatch.setattr(class_pictures, "smooth", lambda scores, x, classes, key, samples: got[: len(x)])
    found.draw_saliency(tmp_path / "s.png")
    np.testing.assert_allclose(kept[0][3], heat_of(wanted[:5]), atol=1e-4)


def test_a_lenets_run_is_drawn(fashion, capsys):  # noqa: F811
    train(fashion / "r", *LENET, "max_steps=2", "seed=3")
    capsys.readouterr()
    assert render.main([f"run={fashion / 'r'}", "device=cpu"]) == 0
    names = ["confusion.png", "mistakes.png", "saliency.png", "curves.png"]
    assert capsys.readouterr().out.split() == [str(fashion / "r" / "pictures" / name) for name in names]
    assert sorted(path.name for path in (fashion / "r" / "pictures").iterdir()) == sorted(names)
