"""Ops that change values: normalising, scaling to a range, one-hot labels, probabilities of codewords."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from domains.codes import hadamard
from ops.tensor.each import Each, Names, floating
from runtime.errors import UsageError

EPSILON = 1e-7  # FastEstimator's, added to a standard deviation


class Normalize(Each):
    """(x - mean max_pixel_value) / (std max_pixel_value), for x (..., C) with numbers of each channel or one for all.

    The defaults are ImageNet's, for pixels in 0..255. Integers become float32.
    """

    def __init__(
        self,
        inputs: Names,
        outputs: Names,
        mean: float | Sequence[float] = (0.485, 0.456, 0.406),
        std: float | Sequence[float] = (0.229, 0.224, 0.225),
        max_pixel_value: float = 255.0,
        mode: Names = None,
        ds_id: Names = None,
    ):
        super().__init__(inputs, outputs, mode, ds_id)
        self.mean, self.std = (np.atleast_1d(np.asarray(v, np.float32)) for v in (mean, std))
        if (self.std <= 0).any() or max_pixel_value <= 0:
            raise UsageError(f"Normalize needs std and max_pixel_value above 0, got {std} and {max_pixel_value}.")
        self.max_pixel_value = max_pixel_value

    def one(self, x: mx.array) -> mx.array:
        """Of x's shape (..., C)."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, x.shape[-1]):
                raise UsageError(f"Normalize: {name} has {len(values)} numbers, got {x.shape[-1]} channels {x.shape}.")
        x = floating(x)
        mean, std = (mx.array(v * self.max_pixel_value).astype(x.dtype) for v in (self.mean, self.std))
        return (x - mean) / (std + EPSILON)


class Minmax(Each):
    """Scales each sample (...,) of x (B, ...) from its own range to [new_min, new_max]; a constant one becomes new_min.

    epsilon: the least range that is divided by. Integers become float32.
    """

    def __init__(self, inputs: Names, outputs: Names, epsilon: float = 1e-7, new_min: float = 0.0,
                 new_max: float = 1.0, mode: Names = None, ds_id: Names = None):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        if new_max <= new_min:
            raise UsageError(f"Minmax: new_max must be above new_min, got {new_max} and {new_min}.")
        self.epsilon, self.new_min, self.new_max = epsilon, new_min, new_max

    def one(self, x: mx.array) -> mx.array:
        """Of x's shape (B, ...)."""
        x, axes = floating(x), tuple(range(1, x.ndim))
        low = x.min(axis=axes, keepdims=True)
        width = mx.maximum(x.max(axis=axes, keepdims=True) - low, self.epsilon)
        return (x - low) / width * (self.new_max - self.new_min) + self.new_min


class Onehot(Each):
    """Integer labels (B, ...) or (B, ..., 1) as rows (B, ..., num_classes) float32.

    label_smoothing s: the label's class gets 1 - s + s / num_classes, every other one s / num_classes. A label outside
    of 0..num_classes - 1 has no class: values in a graph can't be refused, so its row is s / num_classes throughout.
    """

    def __init__(self, inputs: Names, outputs: Names, num_classes: int, label_smoothing: float = 0.0,
                 mode: Names = None, ds_id: Names = None):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"Onehot: label_smoothing must lie in 0..1, below 1, got {label_smoothing}.")
        self.num_classes, self.label_smoothing = num_classes, label_smoothing

    def one(self, x: mx.array) -> mx.array:
        """(B, ..., num_classes) float32; UsageError for labels that are not integers."""
        if not mx.issubdtype(x.dtype, mx.integer):
            raise UsageError(f"Onehot needs integer labels, got {x.dtype}.")
        labels = x if x.ndim > 1 and x.shape[-1] == 1 else x[..., None]
        hot = (labels == mx.arange(self.num_classes)).astype(mx.float32)
        return hot * (1 - self.label_smoothing) + self.label_smoothing / self.num_classes


class UnHadamard(Each):
    """Class probabilities (B, C) from codes (B, L), a tanh layer's output say; the loader's `Hadamard` writes targets.

    A class's probability is proportional to 1 / its L1 distance, which counts as at least the one that gives a perfect
    code a probability of .99999, roughly (FastEstimator's inverse distance weighting).
    """

    def __init__(self, inputs: Names, outputs: Names, n_classes: int, code_length: int | None = None,
                 mode: Names = None, ds_id: Names = None):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        self.codes = hadamard(n_classes, code_length)
        self.least = (self.codes.shape[1] + 1) * 1e-5 / (0.99999 * (n_classes - 1))

    def one(self, x: mx.array) -> mx.array:
        """(B, n_classes) from codes (B, code_length)."""
        if x.ndim != 2 or x.shape[-1] != self.codes.shape[1]:
            raise UsageError(f"UnHadamard needs codes (B, {self.codes.shape[1]}), got shape {x.shape}.")
        distance = mx.abs(x[:, None] - mx.array(self.codes)).sum(axis=-1)
        nearness = 1 / mx.maximum(distance, self.least)
        return nearness / nearness.sum(axis=-1, keepdims=True)
