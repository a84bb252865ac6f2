"""Pictures of a run that sorts images into classes: what it confuses, where it looks, what it gets most wrong."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from runtime.op import Batch
from runtime.run import Run
from runtime.seed import step_key
from runtime.slots import snapshot
from runtime.upload import to_device
from traces.metrics.accuracy import Accuracy
from traces.metrics.confusion_matrix import counts
from traces.xai.attribution import smooth
from training.forward import ForwardStep
from training.learner import Learner
from visualizers.classes import plot_confusion, save_captioned

ROWS = 10_000  # held-out rows that are judged
WORST, LOOKED_AT = 32, 16  # images drawn
SAMPLES = 16  # noisy copies of an image whose gradients are averaged


class Judged:
    """Right classes (N,) or one-hot (N, C), scores (N, C) and images (N, H, W, 1 or 3) of rows, at most ROWS of them.

    probable: whether the scores are probabilities; else they are what a softmax takes.
    """

    def __init__(self, true: np.ndarray, scores: np.ndarray, images: np.ndarray | None):
        scores, true = scores[:ROWS].astype(np.float64), true[:ROWS]
        self.true = true.argmax(-1) if true.ndim == 2 and true.shape[1] > 1 else true.reshape(-1)
        self.probable = bool((scores >= 0).all() and np.allclose(scores.sum(-1), 1, atol=1e-3))
        size = np.exp(scores - scores.max(-1, keepdims=True))
        self.p = scores if self.probable else size / size.sum(-1, keepdims=True)
        self.said = self.p.argmax(-1)
        self.images: Any = None if images is None else images[:ROWS]

    def mistakes(self) -> np.ndarray:
        """The rows that are wrong, those first whose wrong class is the likeliest."""
        wrong = np.flatnonzero(self.said != self.true)
        return wrong[np.argsort(-self.p[wrong].max(-1), kind="stable")]


@dataclass
class Classifier:
    """A run whose network gives scores (B, C) under the key `pred`, with the right classes under `true`."""

    run: Run
    learns: Learner
    true: str
    pred: str

    @cached_property
    def step(self) -> Any:
        """The network's forward pass in evaluation, of a batch and the keys wanted."""
        forward = ForwardStep(self.learns.network, "eval", compile=False)
        arrays = snapshot(self.learns.network.models)
        return lambda batch, wanted: forward(arrays, batch, step_key(0, 0), wanted)

    @cached_property
    def first(self) -> Batch:
        """The first held-out batch on the device."""
        return to_device(next(self.run.pipeline.batches("eval")))

    @cached_property
    def judged(self) -> Judged:
        """The network's word on held-out rows."""
        true, scores, images, found = [], [], [], 0
        for batch in self.run.pipeline.batches("eval"):
            out = self.step(to_device(batch), {self.true, self.pred})
            real = batch["mask"].astype(bool)
            true.append(np.array(out[self.true] if self.true in out else batch[self.true])[real])
            scores.append(np.array(out[self.pred].astype(mx.float32))[real])
            if is_images(batch.get("x")):
                images.append(batch["x"][real])
            found += int(real.sum())
            if found >= ROWS:
                break
        return Judged(np.concatenate(true), np.concatenate(scores), np.concatenate(images) if images else None)

    @property
    def drawings(self) -> dict[str, Callable[[Path], Path]]:
        """What can be drawn, by name; nothing where the scores are not of several classes a row."""
        out = self.step(self.first, {self.pred})[self.pred]
        if out.ndim != 2 or out.shape[1] < 2:
            return {}
        found = {"confusion": self.draw_confusion}
        return found | {"mistakes": self.draw_mistakes, "saliency": self.draw_saliency} if self.seen else found

    @property
    def seen(self) -> bool:
        """Whether the held-out rows are images."""
        return is_images(self.first.get("x"))

    def draw_confusion(self, path: Path) -> Path:
        """The confusion matrix."""
        judged = self.judged
        right = np.mean(judged.said == judged.true)
        matrix = counts(judged.true, judged.said, judged.p.shape[1])
        return plot_confusion(matrix, path, f"{len(judged.true):,} held-out rows, {right:.1%} right")

    def draw_mistakes(self, path: Path) -> Path:
        """The images whose wrong class is the likeliest to the model."""
        judged = self.judged
        worst = judged.mistakes()[:WORST]
        captions = [f"true {judged.true[i]}, said {judged.said[i]} ({judged.p[i].max():.0%})" for i in worst]
        return save_captioned(judged.images[worst], captions, path)

    def draw_saliency(self, path: Path) -> Path:
        """The first images, and below each how much its pixels move the score of the class that the model says."""
        judged = self.judged
        some = judged.images[: min(LOOKED_AT, len(self.first["mask"]))]
        said = judged.said[: len(some)]
        captions = [f"true {judged.true[i]}, said {said[i]}" for i in range(len(some))]
        gradients = smooth(self.scores, mx.array(some.astype(np.float32)), mx.array(said), mx.random.key(0), SAMPLES)
        return save_captioned(some, captions, path, heat_of(np.array(gradients)))

    def scores(self, x: mx.array) -> mx.array:
        """Logarithms of the probabilities (B, C) of images x (B, H, W, C), the rest of the batch as in the first."""
        out = self.step({**{k: v[: len(x)] for k, v in self.first.items()}, "x": x}, {self.pred})[self.pred]
        return mx.log(mx.maximum(out, 1e-12)) if self.judged.probable else out - mx.logsumexp(out, -1, keepdims=True)


def classifier(run: Run, learns: Learner) -> Classifier | None:
    """The run as a classifier, told from the accuracy that its network measures; None where it measures none."""
    measured = next((metric for metric in learns.metrics.values() if isinstance(metric, Accuracy)), None)
    return None if measured is None else Classifier(run, learns, measured.true_key, measured.pred_key)


def is_images(x: Any) -> bool:
    """Whether an array is a batch of images (B, H, W, 1 or 3)."""
    return x is not None and x.ndim == 4 and x.shape[-1] in (1, 3)


def heat_of(gradients: np.ndarray) -> np.ndarray:
    """Gradients (B, H, W, C) as maps (B, H, W) in [0, 1]: the channels' largest size, 1 at each map's 99% quantile."""
    sizes = np.abs(gradients).max(axis=-1)
    top = np.quantile(sizes, 0.99, axis=(1, 2), keepdims=True)
    return np.clip(sizes / np.maximum(top, 1e-12), 0, 1)
