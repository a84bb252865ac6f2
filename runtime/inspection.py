"""What the arrays of a nest hold: numbers that are not finite, their statistics, gradients too small or too large.

Each function evaluates once for a whole nest, in float32: bf16 sums lose what they add, fp16 squares overflow.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
import numpy as np

from runtime.columns import columns
from runtime.trees import Array, leaves

VANISHING, EXPLODING = 1e-8, 1e3  # norms of a leaf's gradient


@dataclass(frozen=True)
class NotFinite:
    """A leaf with numbers that are not finite: how many of its `size` numbers are NaN, and how many infinite."""

    path: str
    nan: int
    infinite: int
    size: int

    def __str__(self) -> str:
        return f"{self.path or 'the array'} has {self.nan} NaN and {self.infinite} infinite of {self.size} numbers"


def check_nan_inf(tree: Any, path: str = "") -> NotFinite | None:
    """The first leaf with a NaN or an infinity, None where all is finite; takes a module, a gradient or any nest.

    path: what the root is called. Integers are finite, and so is a nest without arrays.
    """
    found = [(name, leaf) for name, leaf in leaves(tree, path) if inexact(leaf)]
    arrays = [as_mlx(leaf) for _, leaf in found]
    if not arrays:
        return None
    finite = np.array(mx.stack([mx.isfinite(array).all() for array in arrays]))
    if finite.all():
        return None
    first = int(finite.argmin())
    nan, infinite = (int(np.array(kind(arrays[first]).sum())) for kind in (mx.isnan, mx.isinf))
    return NotFinite(found[first][0], nan, infinite, arrays[first].size)


def inexact(leaf: Array) -> bool:
    """Whether a leaf's type has a NaN."""
    return mx.issubdtype(leaf.dtype, mx.inexact) if isinstance(leaf, mx.array) else leaf.dtype.kind in "fc"


def as_mlx(leaf: Array) -> mx.array:
    """A leaf as an MLX array of its shape."""
    return leaf if isinstance(leaf, mx.array) else mx.array(leaf)


@dataclass(frozen=True)
class ArrayStats:
    """A leaf's numbers; lowest to std are of the finite ones, NaN where there is none. zero: the part that is 0."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    lowest: float
    highest: float
    mean: float
    std: float
    zero: float
    nan: int
    infinite: int


def array_stats(tree: Any, path: str = "") -> list[ArrayStats]:
    """The statistics of every leaf, of a complex one those of its absolute values; std divides by the count."""
    found = list(leaves(tree, path))
    sums = [_sums(as_mlx(leaf)) for _, leaf in found]
    mx.eval(sums)
    made = []
    for (name, leaf), values in zip(found, sums, strict=True):
        low, high, mean, std, zeros, nan, infinite, finite = (cast(float, value.item()) for value in values)
        if not finite:
            low = high = mean = std = math.nan
        kind = str(leaf.dtype).removeprefix("mlx.core.")
        zero, counts = zeros / max(leaf.size, 1), (int(nan), int(infinite))
        made.append(ArrayStats(name, tuple(leaf.shape), kind, low, high, mean, std, zero, *counts))
    return made


def _sums(array: mx.array) -> tuple[mx.array, ...]:
    """Lowest, highest, mean, std, how many are 0, NaN, infinite and finite, each 0-d."""
    if array.size == 0:
        return (mx.array(0),) * 8
    exact = array.astype(mx.int32) if array.dtype == mx.bool_ else array
    exact = mx.abs(exact) if exact.dtype == mx.complex64 else exact
    finite, count = mx.isfinite(exact), mx.maximum(mx.isfinite(exact).sum(), 1)
    value = mx.where(finite, exact, 0).astype(mx.float32)
    top = mx.maximum(mx.abs(value).max(), 1e-30)  # over it, so that no sum and no square overflows
    part = (value / top).sum() / count
    mean, std = top * part, top * mx.sqrt(mx.where(finite, mx.square(value / top - part), 0).sum() / count)
    bounds = (exact.min(), exact.max())
    if mx.issubdtype(exact.dtype, mx.inexact):
        bounds = (mx.where(finite, exact, math.inf).min(), mx.where(finite, exact, -math.inf).max())
    nan, infinite = mx.isnan(array).sum(), mx.isinf(array).sum()
    return (*bounds, mean, std, (array == 0).sum(), nan, infinite, finite.sum())


def print_array_stats(tree: Any, path: str = "") -> None:
    """Prints `array_stats`, a line a leaf."""
    rows: list[tuple[str, ...]] = [
        ("array", "type", "shape", "lowest", "highest", "mean", "std", "zeros", "NaN", "inf")
    ]
    for one in array_stats(tree, path):
        numbers = (f"{value:.4g}" for value in (one.lowest, one.highest, one.mean, one.std))
        counts = (f"{one.zero:.1%}", str(one.nan), str(one.infinite))
        rows.append((one.path or "array", one.dtype, str(one.shape), *numbers, *counts))
    print("\n".join(columns(rows)) if len(rows) > 1 else "no arrays")


@dataclass(frozen=True)
class GradientNorm:
    """A leaf's gradient: its 2-norm, largest absolute value and verdict.

    verdict: ok, zero, vanishing, exploding or not finite.
    """

    path: str
    norm: float
    largest: float
    verdict: str


def gradient_norms(gradients: Any, vanishing: float = VANISHING, exploding: float = EXPLODING) -> list[GradientNorm]:
    """The norm of every leaf. Zero is no vanishing one: no path leads from such a leaf to the loss, or it is gated.

    Norms are of the gradients over their largest value: squares of 1e-25 or 1e25 don't fit float32.
    """
    found = [(path, as_mlx(leaf)) for path, leaf in leaves(gradients) if leaf.size]
    sizes = [mx.abs(leaf).astype(mx.float32) for _, leaf in found]
    tops = [size.max() for size in sizes]
    parts = [size / mx.where(top > 0, top, 1) for size, top in zip(sizes, tops, strict=True)]
    norms = [top * mx.sqrt(mx.square(part).sum()) for part, top in zip(parts, tops, strict=True)]
    bad = [~mx.isfinite(leaf).all() for _, leaf in found]
    mx.eval(norms, tops, bad)
    made = []
    for (path, _), *values in zip(found, norms, tops, bad, strict=True):
        norm, largest, broken = (cast(float, value.item()) for value in values)
        made.append(GradientNorm(path, norm, largest, _verdict(norm, largest, bool(broken), vanishing, exploding)))
    return made


def _verdict(norm: float, largest: float, bad: bool, vanishing: float, exploding: float) -> str:
    if bad:
        return "not finite"
    if largest == 0:
        return "zero"
    return "vanishing" if norm < vanishing else "exploding" if norm > exploding else "ok"


def debug_gradient(gradients: Any, vanishing: float = VANISHING, exploding: float = EXPLODING) -> list[GradientNorm]:
    """Prints and returns `gradient_norms`, a line a leaf and a last one that counts the verdicts."""
    found = gradient_norms(gradients, vanishing, exploding)
    rows = [("gradient", "norm", "largest", "verdict")]
    rows += [(one.path or "gradient", f"{one.norm:.4g}", f"{one.largest:.4g}", one.verdict) for one in found]
    counts = Counter(one.verdict for one in found)
    print("\n".join(columns(rows)))
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "no gradients")
    return found
