"""MeanFlow, improved MeanFlow and shortcut models against numbers of the official code.

Losses and gradients, or targets, within 1e-4.
"""

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from losses.average_velocity import Rows
from losses.imf import IMF
from losses.meanflow import MeanFlow
from losses.shortcut import Shortcut
from tests.losses.closed_form import CTX

MEANFLOW, IMPROVED, SHORTCUT = (
    json.loads((Path(__file__).parent / f"fixtures_{name}.json").read_text())
    for name in ("meanflow", "imf", "shortcut")
)
CLASSES = 3


class Official(nn.Module):
    """The fixtures' network seen from this side: noise at t=0, velocities from noise to data."""

    def __init__(self, weights):
        super().__init__()
        for name, value in weights.items():
            self[name] = mx.array(value)

    def __call__(self, x, times=None, key=None, label=None, guidance=None, interval=None, velocity_head=False):
        features = [x.reshape(x.shape[0], -1), 1 - times[:, :1], times[:, 1:] - times[:, :1]]
        if guidance is not None:
            features += [(1 - 1 / guidance)[:, None], 1 - interval[:, 1:], 1 - interval[:, :1]]
        label = mx.full(x.shape[:1], -1) if label is None else label
        embedded = self.label[mx.where(label < 0, CLASSES, label)]
        h = nn.silu(mx.concatenate(features, axis=1) @ self.w1 + self.b1 + embedded)
        u = -(h @ self.w2 + self.b2).reshape(x.shape)
        return (u, -(h @ self.w3 + self.b3).reshape(x.shape)) if velocity_head else u


def compare(objective, fixture, rows, case, label):
    """Runs the objective on a case's rows; its loss and gradients against the case's."""
    count, times = len(rows["x"]), np.array([rows["t"], rows["r"]])
    objective.pairs = lambda *_: mx.array(1 - times.T, dtype=mx.float32)
    batch = {"x": mx.array(rows["x"]), "x0": mx.array(rows["e"]), "label": mx.array(label)}
    model = Official(fixture["weights"])
    loss, gradients = nn.value_and_grad(model, lambda m: objective(m, batch, CTX)[0])(model)
    assert count == 8 and abs(loss.item() / case["loss"] - 1) < 1e-4
    for name, wanted in case["gradients"].items():
        wanted = np.array(wanted)
        error = np.linalg.norm(np.array(gradients[name]) - wanted) / max(np.linalg.norm(wanted), 1e-8)
        assert error < 1e-4, (name, error)


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("case", MEANFLOW["cases"], ids=lambda c: f"{c['source']}-{c['loss']}")
def test_meanflow(case, share):
    """Rows 4 to 7 have r = t, so that a jvp over half of the rows must give what one over all does."""
    rows = MEANFLOW["rows"]
    guided = "omega" in case
    low, high = case.get("guided_times", [0, 1])
    label = np.array(rows["y"], np.int32)
    label[: case.get("dropped", 0)] = -1
    objective = MeanFlow(
        None, share, case["power"], case["eps"], ["label"] if guided else [], 0.0, case.get("omega", 1),
        case.get("kappa", 0), 1 - high, 1 - low,
    )  # fmt: skip
    compare(objective, MEANFLOW, rows, case, label)


@pytest.mark.parametrize("case", IMPROVED["cases"], ids=lambda c: f"{c['loss']}")
def test_improved_meanflow(case):
    """boundary: the velocity is u(z, r, r). The official code drops labels where r = t alone: those rows come first."""
    rows, dropped = case["rows"], case["dropped"]
    label = np.array(rows["y"], np.int32)
    label[:dropped] = -1
    objective = IMF(
        None, 1.0 if dropped else 0.5, case["power"], case["eps"], not case["boundary"], 8.0, ["label"],
    )  # fmt: skip
    interval = 1 - np.array([rows["high"], rows["low"]]).T
    objective.draw = lambda *_: (mx.array(rows["omega"]), mx.array(interval, dtype=mx.float32))
    compare(objective, IMPROVED, rows, case, label)


@pytest.mark.parametrize("case", SHORTCUT["cases"], ids=lambda c: f"omega-{c['omega']}")
def test_shortcut(case):
    """The network's own times are 1 - start and t - r, and its sign the other: both are turned back."""
    model = Official(SHORTCUT["weights"])

    def network(x, times=None, key=None, label=None):
        return -model(x, mx.stack([1 - times[:, 0], 1 - times[:, 0] + times[:, 1] - times[:, 0]], 1), label=label)

    z, start = mx.array(case["z"]), mx.array(case["start"])
    rows = Rows(z, z, start, start + mx.array(case["size"]), {"label": mx.array(np.array(case["y"], np.int32))}, 16)
    target = Shortcut(steps=8, clamp=4.0, omega=case["omega"], conditions=["label"]).two_halves(network, rows)
    np.testing.assert_allclose(np.array(target), np.array(case["target"]), rtol=1e-4, atol=1e-5)
