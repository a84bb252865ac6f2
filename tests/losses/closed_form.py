"""Data N(mean, std^2) in one dimension: the flow map is affine, so the exact average velocity is known."""

import math
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from losses.average_velocity import Rows
from models.mlp import MLP
from runtime.op import Context
from solvers.average import Average

CTX = Context("train", mx.random.key(0), mx.array(0), mx.array(0))
CASES = [(3.0, 0.5), (-1.0, 2.0)]


def deviation(time, std):
    """Standard deviation of z_time."""
    return mx.sqrt((1 - time) ** 2 + time**2 * std**2)


def exact_velocity(z, r, mean, std):
    return mean + (z - mean * r) * (r * std**2 - (1 - r)) / deviation(r, std) ** 2


def exact(mean, std):
    """The exact average velocity as a model: (flow map - z) / (t - r), at t = r the exact velocity."""

    def model(z, times=None, key=None, label=None):
        r, t = times[:, :1].astype(z.dtype), times[:, 1:].astype(z.dtype)
        still = t == r
        gap = mx.where(still, 1, t - r)
        away = (mean * t + (z - mean * r) * deviation(t, std) / deviation(r, std) - z) / gap
        return mx.where(still, exact_velocity(z, r, mean, std), away)

    return model


def exact_rows(mean, std, count=4000, r=None, t=None):
    """Rows in float64 whose v is the exact velocity, which a loss then measures u against; use on the CPU's stream."""
    rng = np.random.default_rng(0)
    drawn = np.sort(rng.random((2, count)), axis=0)
    r, t = (mx.array(drawn[i] if given is None else given, dtype=mx.float64) for i, given in enumerate((r, t)))
    z = mx.array(rng.normal(size=(count, 1)), dtype=mx.float64) * deviation(r, std)[:, None] + mean * r[:, None]
    return Rows(z, exact_velocity(z, r[:, None], mean, std), r, t, {}, count)


def train(objective, mean, std, steps=2000, rate=5e-3, phase=lambda step: None):
    """A small MLP trained on N(mean, std^2) with the real objective; mean and std of one jump."""
    mx.random.seed(0)
    model, optimizer = MLP((1,), 64, 3), optim.Adam(rate)
    state = [model.state, optimizer.state]

    def stepped(x, key, step, now):
        ctx = replace(CTX, key=key, step=step, phase=now)
        loss, gradient = nn.value_and_grad(model, lambda m: objective(m, {"x": x}, ctx)[0])(model)
        optimizer.update(model, gradient)
        return loss

    compiled = {}
    rng = np.random.default_rng(0)
    for number in range(steps):
        now = phase(number)
        if now not in compiled:
            compiled[now] = mx.compile(lambda *given, now=now: stepped(*given, now), inputs=state, outputs=state)
        optimizer.learning_rate = rate * 0.5 * (1 + math.cos(math.pi * number / steps))
        x = mx.array(rng.normal(mean, std, (512, 1)).astype(np.float32))
        mx.eval(compiled[now](x, mx.random.key(number), mx.array(number)), state)
    noise = mx.array(rng.normal(size=(20_000, 1)).astype(np.float32))
    out = np.array(objective.sample(model, noise, Average()))
    return out.mean(), out.std()
