"""Adversarial training: the step against one written by hand; the attack's size and its effect."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

from examples.fgsm import get_estimator
from tests.examples.made import clothes, steps
from tests.training.by_hand import assert_same, weights

EPSILON = 0.04


def by_hand(model, batches, adversarial):
    optimizer = optim.Adam(1e-3, bias_correction=True)

    def entropy(x, y):
        return -mx.log(mx.take_along_axis(model(x), y[:, None], axis=1)).mean()

    for batch in batches:
        x, y = batch["x"], batch["y"].astype(mx.int32)
        attacked = mx.clip(x + EPSILON * mx.sign(mx.grad(entropy)(x, y)), x.min(), x.max())
        losses = (x, attacked) if adversarial else (x,)
        _, grads = nn.value_and_grad(model, lambda y, *xs: sum(entropy(x, y) for x in xs) / len(xs))(y, *losses)
        optimizer.update(model, grads)
        mx.eval(model.parameters())
    return weights(model)


@pytest.mark.parametrize("adversarial", [True, False])
def test_steps_equal_those_written_by_hand(tmp_path, adversarial):
    estimator = get_estimator(adversarial=adversarial, batch_size=8, root=clothes(tmp_path))
    (model,) = estimator.network.models.values()
    start = {path: mx.array(leaf) for path, leaf in weights(model).items()}
    batches, _ = steps(estimator, 3)
    found = weights(model)
    model.load_weights(list(start.items()))
    want = by_hand(model, batches, adversarial)
    assert_same(found, want, rtol=1e-3, atol=2e-5)
    moved = max(np.abs(found[path] - np.array(start[path])).max() for path in found)
    assert moved > 1e-3  # a hundred times the tolerance: three steps of Adam


def test_the_attack_stays_small_and_raises_the_loss(tmp_path):
    estimator = get_estimator(epochs=3, batch_size=16, root=clothes(tmp_path))
    batches, outs = steps(estimator, 2, ("x_adverse",))
    moved = outs[1]["x_adverse"] - np.array(batches[1]["x"])
    assert 0.9 * EPSILON < np.abs(moved).max() < EPSILON + 1e-6
    first = dict(estimator.test().latest)
    assert first["test/adv_ce"] > first["test/base_ce"]
    estimator.fit()
    last = estimator.test().latest
    assert last["test/base_ce"] < first["test/base_ce"] and last["test/adv_ce"] < first["test/adv_ce"]
    assert {"eval/base accuracy", "test/adversarial accuracy", "eval/min_adv_ce"} <= last.keys()
