"""Layers that the networks share: everything here works under mx.jvp, under mx.grad of mx.jvp, in bf16 and compiled.

Randomness comes in as a key; a layer computes in the dtype of its weights.
"""

import math
from typing import Literal

import mlx.core as mx
import mlx.nn as nn

from models.elementary import erf_gelu, selu, silu, tanh
from runtime.errors import UsageError

Activation = Literal["silu", "gelu", "relu", "selu", "tanh"]


def activation_named(name: Activation):
    """The elementwise function called `name`."""
    return {"silu": silu, "gelu": erf_gelu, "relu": nn.relu, "selu": selu, "tanh": tanh}[name]


def check_sample(model: nn.Module, x: mx.array, shape: tuple[int, ...]) -> None:
    """Raises UsageError unless x is a batch (B, *shape)."""
    if tuple(x.shape[1:]) != shape:
        needed = ", ".join(["B", *map(str, shape)])
        raise UsageError(f"{type(model).__name__} was built for samples of shape {shape}: x must be ({needed}), "
                         f"got {tuple(x.shape)}.")  # fmt: skip


def check_times(x: mx.array, times: mx.array | None) -> mx.array:
    """Gives times back; raises UsageError unless they are (B, 2), a start and an end for every row of x."""
    if times is None:
        raise UsageError(f"this model needs times of shape ({x.shape[0]}, 2), a start and an end per row; got None.")
    if tuple(times.shape) != (x.shape[0], 2):
        raise UsageError(f"times must have shape ({x.shape[0]}, 2), a start and an end per row of x; "
                         f"got {tuple(times.shape)}.")  # fmt: skip
    return times


def image_shape(model: nn.Module, shape: tuple | list) -> tuple[int, int, int]:
    """The sample shape (H, W, C) as a tuple; raises UsageError for anything without three axes."""
    if len(shape) != 3:
        raise UsageError(f"{type(model).__name__} works on images: shape must be [height, width, channels], "
                         f"got {list(shape)}.")  # fmt: skip
    return tuple(shape)


def check_halvings(model: nn.Module, shape: tuple[int, int, int], halvings: int) -> None:
    """Raises UsageError unless an image (H, W, C) can be halved so often; one multiplier more is one halving more."""
    height, width, _ = shape
    if height % 2**halvings or width % 2**halvings:
        raise UsageError(
            f"{type(model).__name__} with {halvings + 1} multipliers halves the image {halvings} times: height and "
            f"width must be multiples of {2**halvings}, got {height} x {width} (pad the images, or give fewer "
            "multipliers)."
        )


def join_times(x: mx.array, times: mx.array | None) -> mx.array:
    """The unified input: (B, D) and (B, 2) -> (B, D+2); (B, H, W, C) and (B, 2) -> (B, H, W, C+2), in x's dtype."""
    pair = check_times(x, times).astype(x.dtype).reshape(x.shape[0], *[1] * (x.ndim - 2), 2)
    return mx.concatenate([x, mx.broadcast_to(pair, (*x.shape[:-1], 2))], axis=-1)


class Dropout(nn.Module):
    """Sets entries to zero with probability p and scales the rest by 1 / (1 - p); without a key it does nothing."""

    def __init__(self, p: float = 0.0):
        super().__init__()
        if not 0 <= p < 1:
            raise UsageError(f"dropout must lie in [0, 1), got {p}.")
        self.p = p

    @property
    def independent_rows(self) -> bool:
        """Whether nothing is drawn here; see runtime/streams.py."""
        return self.p == 0 or not self.training

    def __call__(self, x: mx.array, key: mx.array | None = None) -> mx.array:
        """x (B, ...) of the same shape; key (2,) uint32, or None for no dropout."""
        if key is None or self.p == 0 or not self.training:
            return x
        keep = mx.random.bernoulli(1 - self.p, x.shape, key=key)
        return mx.where(keep, x * (1 / (1 - self.p)), mx.zeros_like(x))


class TimeEmbedding(nn.Module):
    """Embeds a pair (start r, end t): sines and cosines of raw r and of t - r, concatenated, then two linear layers.

    features: sines and cosines per time, even. Times are not multiplied by 1000 (MeanFlow, arXiv 2505.13447, embeds raw
    times), so the fastest wave is cos(t) and derivatives with respect to time stay small.
    """

    def __init__(self, features: int, width: int, max_period: float = 10_000.0):
        super().__init__()
        if features % 2:
            raise UsageError(f"TimeEmbedding: features must be even (sines and cosines), got {features}.")
        self.features, self.max_period = features, max_period
        self.first = nn.Linear(2 * features, width)
        self.second = nn.Linear(width, width)

    def __call__(self, times: mx.array) -> mx.array:
        """times (B, 2) -> (B, width)."""
        half = self.features // 2
        waves = mx.exp(mx.arange(half).astype(times.dtype) * (-math.log(self.max_period) / half))
        both = mx.stack([times[:, 0], times[:, 1] - times[:, 0]], axis=1)  # (B, 2): the time of the state, the interval
        angles = both[:, :, None] * waves
        found = mx.concatenate([mx.cos(angles), mx.sin(angles)], axis=-1).reshape(times.shape[0], -1)
        return self.second(silu(self.first(found.astype(self.first.weight.dtype))))


class ClassEmbedding(nn.Module):
    """Adds a learned vector per class; one more stands for "no class", meant by a negative label or None."""

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.classes = classes
        self.weight = mx.random.normal((classes + 1, width)) * 0.02

    def __call__(self, h: mx.array, label: mx.array | None) -> mx.array:
        """h (B, ..., width), label (B,) int or None -> h plus each row's vector."""
        if label is None:
            return h + self.weight[self.classes]
        if tuple(label.shape) != (h.shape[0],):
            raise UsageError(f"label must have shape ({h.shape[0]},), one class per row; got {tuple(label.shape)}.")
        rows = self.weight[mx.where(label < 0, self.classes, label)]
        return h + rows.reshape(h.shape[0], *[1] * (h.ndim - 2), -1)


class Unlabelled(nn.Module):
    """Stands where a model has no classes: leaves h alone and refuses labels."""

    def __call__(self, h: mx.array, label: mx.array | None) -> mx.array:
        """h (B, ...) unchanged; raises UsageError when a label is given."""
        if label is not None:
            raise UsageError("this model was built with classes=0 and got a label; build it with classes > 0.")
        return h


def class_embedding(classes: int, width: int) -> nn.Module:
    """ClassEmbedding for classes > 0, Unlabelled for none."""
    return ClassEmbedding(classes, width) if classes else Unlabelled()
