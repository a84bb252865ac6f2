"""GPT on characters: it learns a text that repeats, is judged by bits on its held-out end, and writes on."""

import math

import mlx.core as mx
import numpy as np

from dataloaders.datasets import characters
from examples import gpt
from models.gpt import GPT
from tests.examples.made import steps
from tests.training.by_hand import weights

TEXT = "abcd" * 6000


def estimator_of(**options):
    mx.random.seed(0)
    return gpt.get_estimator(batch_size=8, context=8, hidden=16, depth=1, heads=2, text=TEXT, **options)


def test_it_learns_a_text_that_repeats_and_writes_it(monkeypatch):
    monkeypatch.setattr(characters, "HELD_OUT", 801)
    estimator = estimator_of(steps=100, learning_rate=1e-2)
    data = estimator.pipeline.sources
    assert (len(data["train"]), len(data["eval"])) == (24_000 - 801 - 8, 100)
    estimator.fit()
    latest = estimator.summary.latest
    assert latest["eval/bits"] < 0.1
    assert math.isclose(latest["eval/bits"], latest["eval/loss"] / math.log(2), rel_tol=1e-5)
    model = estimator.network.models["model"]
    assert isinstance(model, GPT) and gpt.written(model, "abcd", "cda", 9) == "cdabcdabcdab"


def test_the_loss_is_that_of_the_next_character_and_every_leaf_moves():
    estimator = estimator_of(steps=10)
    model = estimator.network.models["model"]
    before = weights(model)
    batches, (first, _) = steps(estimator, 2, ("logits",))
    logits, y = first["logits"].astype(np.float64), np.array(batches[0]["y"])
    np.testing.assert_array_equal(np.array(batches[0]["x"])[:, 1:], y[:, :-1])
    chosen = np.take_along_axis(logits, y[..., None], -1)[..., 0]
    np.testing.assert_allclose(first["loss"], (np.log(np.exp(logits).sum(-1)) - chosen).mean(), rtol=1e-5)
    assert abs(first["loss"] - math.log(4)) < 0.1
    assert all((weights(model)[path] != leaf).any() for path, leaf in before.items())
