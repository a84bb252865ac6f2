"""Many small trainings at once, whose rates are chosen cycle by cycle: where ARC's examples come from.

The runs of a group share task, batch size and optimizer, and differ in first weights, batches and rates. Their weights
are stacked, (R, ...), so that a layer of all runs is one batched product.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from dataloaders.datasets.characters import encode, genesis
from dataloaders.digits import FILE
from optimizers.arc_network import CYCLES, FACTORS, POINTS, Cycle

Policy = Callable[[list[list[Cycle]], np.ndarray, np.random.Generator], np.ndarray]
CONTEXT = 3  # characters that the next is told from
JUDGED = 512  # rows of an evaluation
USUAL = {"sgd": 0.1, "momentum": 0.02, "adam": 3e-3}  # rates that suit most tasks, by optimizer


class Task(NamedTuple):
    """Rows and targets to train on and to judge by, widths of a perceptron's layers, and what its loss is.

    patches: the first layer is a 3 x 3 convolution of an 8 x 8 image, then means of 2 x 2.
    """

    train: tuple[np.ndarray, np.ndarray]
    held: tuple[np.ndarray, np.ndarray]
    sizes: Sequence[int]
    regression: bool = False
    patches: bool = False


class Example(NamedTuple):
    """The last cycles of a run, and the losses (3,) after one more cycle, by FACTORS; infinite where it diverged."""

    cycles: list[Cycle]
    losses: np.ndarray


def plane(rng: np.random.Generator) -> Task:
    """Classes in the plane: spirals, rings, blobs or a chequerboard."""
    count, kind, classes = int(rng.integers(128, 1024)), rng.integers(4), int(rng.integers(2, 5))
    x, label = rng.uniform(-1, 1, (count + JUDGED, 2)), rng.integers(classes, size=count + JUDGED)
    if kind == 0:
        radius = rng.uniform(0.1, 1, len(x))
        angle = 2 * np.pi * (radius * rng.uniform(0.5, 1.5) + label / classes)
        x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    elif kind == 1:
        label = (np.hypot(*x.T) * classes / 1.2).astype(int) % classes
    elif kind == 2:
        x = rng.uniform(-1, 1, (classes, 2))[label] + rng.uniform(0.1, 0.4) * rng.standard_normal(x.shape)
    else:
        label = np.floor(x * rng.uniform(1, 2)).sum(1).astype(int) % classes
    x = x * rng.uniform(0.5, 3) + 0.05 * rng.standard_normal(x.shape)
    return task(x, noisy(label, classes, rng), count, [2, *hidden(rng), classes])


def curve(rng: np.random.Generator) -> Task:
    """A sum of waves over 1 to 8 dimensions, with noise, by squares."""
    count, width = int(rng.integers(64, 1024)), int(rng.integers(1, 9))
    x = rng.standard_normal((count + JUDGED, width))
    waves = rng.standard_normal((width, 6)) * rng.uniform(0.3, 2) / np.sqrt(width)
    y = np.sin(x @ waves + rng.uniform(0, 6, 6)) @ rng.standard_normal((6, 1))
    y += rng.choice([0.02, 0.2, 0.7]) * rng.standard_normal(y.shape)
    return task(x, y * 10 ** rng.uniform(-0.5, 0.5), count, [width, *hidden(rng), 1], regression=True)


def digits(rng: np.random.Generator) -> Task:
    """Noisy digits by a perceptron or a small convolutional network."""
    with np.load(FILE) as stored:
        order = rng.permutation(len(stored["labels"]))
        x, label = stored["images"][order].reshape(-1, 64) / 8.0 - 1, stored["labels"][order]
    x, y = x + rng.choice([0, 0.5, 1]) * rng.standard_normal(x.shape), noisy(label, 10, rng)
    if rng.random() < 0.5:
        sizes = [9, int(rng.choice([4, 8])), 32, 10]
        return task(windows(x), y, int(rng.integers(200, 1285)), sizes, patches=True)
    return task(x, y, int(rng.integers(200, 1285)), [64, *hidden(rng), 10])


def text(rng: np.random.Generator) -> Task:
    """The next character of Genesis after CONTEXT, one-hot."""
    lower = genesis().lower()
    count = int(rng.integers(1000, 4000))
    start = int(rng.integers(len(lower) - count - JUDGED - CONTEXT))
    tokens = encode(lower[start : start + count + JUDGED + CONTEXT], "".join(sorted(set(lower))))
    rows = np.eye(len(set(lower)))[np.lib.stride_tricks.sliding_window_view(tokens, CONTEXT + 1)]
    x, y = rows[:, :-1].reshape(len(rows), -1), rows[:, -1]
    return task(x, y, count, [x.shape[1], int(rng.choice([16, 32])), y.shape[1]])


FAMILIES = (plane, curve, digits, text)


def hidden(rng: np.random.Generator) -> list[int]:
    """Widths of one to three hidden layers."""
    return [int(rng.choice([16, 32]))] * int(rng.integers(1, 4))


def noisy(label: np.ndarray, classes: int, rng: np.random.Generator) -> np.ndarray:
    """One-hot labels, some of which are wrong in two tasks of three."""
    wrong = rng.random(len(label)) < rng.choice([0, 0.1, 0.25])
    return np.eye(classes)[np.where(wrong, rng.integers(classes, size=len(label)), label)]


def windows(images: np.ndarray) -> np.ndarray:
    """(N, 36, 9) neighbourhoods of images (N, 64)."""
    return np.lib.stride_tricks.sliding_window_view(images.reshape(-1, 8, 8), (3, 3), (1, 2)).reshape(-1, 36, 9)


def task(x: np.ndarray, y: np.ndarray, count: int, sizes: Sequence[int], **options: Any) -> Task:
    """Trains on the first `count` rows and judges by the next JUDGED."""
    x, y = x.astype(np.float32), y.astype(np.float32)
    return Task((x[:count], y[:count]), (x[count:][:JUDGED], y[count:][:JUDGED]), sizes, **options)


@cache
def functions(optimizer: str, regression: bool, patches: bool) -> tuple[Callable, Callable]:
    """Of all runs: the losses (R,) by (weights, x, y), and a step with rates (R, 1, 1), which gives them too."""

    def losses(weights: list[mx.array], x: mx.array, y: mx.array) -> mx.array:
        layers = list(zip(weights[::2], weights[1::2], strict=True))
        if patches:
            kernel, bias = layers.pop(0)
            x = mx.maximum(x.reshape(len(x), -1, 9) @ kernel + bias, 0)
            x = x.reshape(len(x), -1, 3, 2, 3, 2, x.shape[-1]).mean(axis=(3, 5)).reshape(len(x), -1, 9 * x.shape[-1])
        for place, (kernel, bias) in enumerate(layers):
            x = (mx.maximum(x, 0) if place else x) @ kernel + bias
        if regression:
            return mx.square(x - y).mean(axis=(1, 2))
        return (mx.logsumexp(x, axis=-1) - (x * y).sum(axis=-1)).mean(axis=1)

    def total(weights: list[mx.array], x: mx.array, y: mx.array) -> tuple[mx.array, mx.array]:
        each = losses(weights, x, y)
        return each.sum(), each

    def step(weights, moments, x, y, rates, number):
        (_, each), moves = mx.value_and_grad(total)(weights, x, y)
        if optimizer == "adam":
            first = [0.9 * m + 0.1 * g for m, g in zip(moments[0], moves, strict=True)]
            second = [0.99 * m + 0.01 * g * g for m, g in zip(moments[1], moves, strict=True)]
            moments, scale = [first, second], mx.sqrt(1 - 0.99**number) / (1 - 0.9**number)
            moves = [scale * m / (mx.sqrt(v) + 1e-8) for m, v in zip(first, second, strict=True)]
        elif optimizer == "momentum":
            moves = [0.9 * m + g for m, g in zip(moments[0], moves, strict=True)]
            moments = [moves]
        return [w - rates * m for w, m in zip(weights, moves, strict=True)], moments, each

    return mx.compile(losses), mx.compile(step)


class Runs:
    """Trainings of a task side by side; their first weights are He's. alike: how many in a row have the same."""

    def __init__(self, task: Task, optimizer: str, count: int, rng: np.random.Generator, alike: int = 1):
        self.losses, self.step = functions(optimizer, task.regression, task.patches)
        self.x, self.y = (mx.array(part) for part in task.train)
        self.held = [mx.array(part)[None] for part in task.held]
        self.number, self.weights = 0, []
        for place, (a, b) in enumerate(zip(task.sizes, task.sizes[1:], strict=False)):
            a = a * 9 if task.patches and place == 1 else a  # 3 x 3 means for each channel
            drawn = rng.standard_normal((count // alike, a, b)) * np.sqrt(2 / a)
            self.weights += [mx.array(np.repeat(drawn, alike, 0), mx.float32), mx.zeros((count, 1, b))]
        self.moments = [[mx.zeros_like(w) for w in self.weights] for _ in range(list(USUAL).index(optimizer))]

    def take(self, rows: np.ndarray) -> None:
        """Goes on with these runs, in this order; some may be there several times."""
        at = mx.array(rows)
        self.weights = [leaf[at] for leaf in self.weights]
        self.moments = [[leaf[at] for leaf in part] for part in self.moments]

    def cycle(self, rates: np.ndarray, rows: np.ndarray, evaluations: int) -> tuple[np.ndarray, np.ndarray]:
        """Training losses (R, S) and evaluation losses (R, evaluations); rows: of the data, (S, R, batch)."""
        seen, judged, column = [], [], mx.array(rates, mx.float32)[:, None, None]
        for place, batch in enumerate(mx.array(rows), 1):
            self.number += 1
            self.weights, self.moments, loss = self.step(
                self.weights, self.moments, self.x[batch], self.y[batch], column, mx.array(float(self.number))
            )
            mx.async_eval(self.weights, self.moments, loss)
            seen.append(loss)
            if place * evaluations % len(rows) == 0:
                judged.append(self.losses(self.weights, *self.held))
        return np.array(mx.stack(seen, 1)), np.array(mx.stack(judged, 1))


def group(family: Callable[[np.random.Generator], Task], count: int, cycles: int, policy: Policy,
          rng: np.random.Generator) -> Iterator[Example]:  # fmt: skip
    """The examples of `count` trainings of one task; the policy chooses which of three ways each goes on."""
    given, optimizer = family(rng), str(rng.choice(list(USUAL)))
    batch, evaluations = int(rng.choice([8, 16, 32, 64])), int(rng.integers(1, 5))
    steps = int(rng.integers(4, 24)) * 4 // evaluations * evaluations
    runs, every = Runs(given, optimizer, count, rng), np.arange(count)
    rates = USUAL[optimizer] * 10 ** rng.uniform(-2.5, 1.5, count)
    history: list[list[Cycle]] = [[] for _ in every]
    alive, ways = np.ones(count, bool), (1.0,)
    for cycle in range(cycles):
        rows = rng.integers(len(given.train[0]), size=(steps, count, batch))
        runs.take(np.tile(every, len(ways)))
        tried = np.concatenate([rates * factor for factor in ways])
        train, evals = runs.cycle(tried, np.tile(rows, (1, len(ways), 1)), evaluations)
        whole = np.isfinite(train).all(1) & np.isfinite(evals).all(1)
        ends = np.where(whole, evals[:, -1], np.inf).reshape(len(ways), count)
        chosen = np.zeros(count, int)
        if cycle:
            yield from (
                Example(history[run], ends[:, run]) for run in every if alive[run] and np.isfinite(ends[:, run]).any()
            )
            chosen = policy(history, ends, rng)
            chosen = np.where(np.isfinite(ends[chosen, every]), chosen, ends.argmin(0))
        alive &= np.isfinite(ends[chosen, every])
        taken = chosen * count + every
        runs.take(taken)
        rates, ways = tried[taken], FACTORS
        closed = [Cycle(parts(train[at]), evals[at].tolist(), float(tried[at])) for at in taken]
        history = [[*before, new][-CYCLES:] for before, new in zip(history, closed, strict=True)]


def parts(losses: np.ndarray) -> list[float]:
    """The means of POINTS equal parts of a cycle, NaN for one without a step."""
    place = np.arange(len(losses)) * POINTS // len(losses)
    counts = np.bincount(place, minlength=POINTS)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (np.bincount(place, losses, POINTS) / counts).tolist()
