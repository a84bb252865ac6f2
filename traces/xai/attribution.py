"""How much each input pixel moves a score: plain, squared, smoothed and integrated gradients."""

from collections.abc import Callable

import mlx.core as mx

Scores = Callable[[mx.array], mx.array]  # x (B, ...) -> scores (B, C)


def saliency(scores: Scores, x: mx.array, classes: mx.array) -> mx.array:
    """d scores[b, classes[b]] / dx, of the shape of x; classes (B,) integers. Rows must not depend on one another."""

    def chosen(x: mx.array) -> mx.array:
        return mx.take_along_axis(scores(x), classes[:, None], axis=1).sum()

    return mx.grad(chosen)(x)


def smooth(scores: Scores, x: mx.array, classes: mx.array, key: mx.array, samples: int = 25, spread: float = 0.15,
           squared: bool = False) -> mx.array:  # fmt: skip
    """The mean gradient (of squares, where `squared`) over `samples` noisy copies of x (SmoothGrad, arXiv 1706.03825).

    x (B, ...) gives (B, ...). spread: the noise's standard deviation in units of x.max() - x.min().
    """
    total, deviation = mx.zeros_like(x), spread * (x.max() - x.min())
    for one in mx.random.split(key, samples):
        gradient = saliency(scores, x + deviation * mx.random.normal(x.shape, key=one), classes)
        total = total + (gradient.square() if squared else gradient)
        mx.eval(total)  # else many copies are in memory at once
    return total / samples


def integrated(scores: Scores, x: mx.array, classes: mx.array, baseline: mx.array, steps: int = 100) -> mx.array:
    """(x - baseline) times the mean gradient between them, midpoints of `steps` pieces (arXiv 1703.01365, eq. 1).

    x, baseline and the result are (B, ...). The sum over a row tends to the score's difference between x and baseline.
    """
    total = mx.zeros_like(x)
    for step in range(steps):
        total = total + saliency(scores, baseline + (step + 0.5) / steps * (x - baseline), classes)
        mx.eval(total)
    return (x - baseline) * total / steps
