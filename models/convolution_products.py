"""Convolutions with dilation and groups of 1 as a few large matrix products, for float32 on a CPU.

Windows are copied side by side (`windows`) for one product, or each place of a window takes a product: on rows of a
grid padded enough it is a constant offset, so neighbours of all positions are one slice, which costs no copy. Positions
whose window sticks out of the grid are computed too, and left out of the result.

MLX's gather copies whole rows of channels, .3 ns a number on a Xeon, where its copies of views go number by number,
.5 to .8, as does the padding before: so all that is copied here is gathered, and the value and the gradient of the
weights pad alike, which mx.compile then does once.

Shapes, with one S per dimension: x (B, ...S, C), w (O, ...kernel, C), y (B, ...S', O), m (places, C, O).
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import mlx.core as mx
import numpy as np

Sizes = tuple[int, ...]
FEW = 16  # channels below which rows are so short that gathering them is slower than MLX's copies
MANY = 4  # positions an output channel, above which copying along one axis less saves more than joining results costs


def padded(x: mx.array, before: Sequence[int], after: Sequence[int]) -> mx.array:
    """x with zeros around its spatial axes, or less of it where a number is negative."""
    ends = [n + min(a, 0) for n, a in zip(x.shape[1:-1], after, strict=True)]
    inside = tuple(slice(max(-b, 0), end) for b, end in zip(before, ends, strict=True))
    if min(*before, *after) < 0:
        x = x[(slice(None), *inside)]
    widths = [(max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True)]
    return mx.pad(x, [(0, 0), *widths, (0, 0)]) if any(map(any, widths)) else x


def offsets(kernel: Sequence[int], grid: Sequence[int]) -> list[int]:
    """How many rows of the grid each of the window's places lies behind the first."""
    strides = [math.prod(grid[i + 1 :]) for i in range(len(grid))]
    return [sum(map(math.prod, zip(place, strides, strict=True))) for place in product(*map(range, kernel))]


@lru_cache(128)
def positions(count: int, grid: Sizes, kernel: Sizes, stride: Sizes, first: bool = False) -> mx.array:
    """Rows of a grid (count, ...grid) under every window, (positions, places), uint32; first: all images of a place on
    the first axis before the next place.
    """
    numbers = np.arange(count * math.prod(grid), dtype=np.uint32).reshape(count, *grid)
    axes = tuple(range(1, len(grid) + 1))
    found = np.lib.stride_tricks.sliding_window_view(numbers, kernel, axis=axes)
    found = found[(slice(None), *(slice(None, None, s) for s in stride))]
    return mx.array(np.ascontiguousarray(found.swapaxes(0, 1) if first else found).reshape(-1, math.prod(kernel)))


def gathers(x: mx.array) -> bool:
    """Whether x has channels enough for its windows to be gathered."""
    return x.shape[-1] >= FEW


def windows(x: mx.array, kernel: Sequence[int], stride: Sequence[int], first: bool = False) -> mx.array:
    """All windows of x, one a row, (positions, places C)."""
    if {*kernel, *stride} == {1} and not first:
        return x.reshape(-1, x.shape[-1])
    at = positions(len(x), x.shape[1:-1], tuple(kernel), tuple(stride), first)
    return x.reshape(-1, x.shape[-1])[at].reshape(len(at), -1)


def pays(channels: int, outputs: int, kernel: Sequence[int], grid: Sequence[int], out: Sequence[int]) -> bool:
    """Whether a product a place beats one product of all windows, which copies C numbers a place.

    Those compute for the whole grid and write O numbers a place. The nanoseconds a number (.8, .3) and a
    multiplication (.02) were fitted to one Xeon's times (benchmarks/convolution.py).
    """
    if max(kernel) == 1:
        return True
    waste = math.prod(grid) / math.prod(out)
    return waste * outputs * (0.3 + 0.02 * channels) < channels * (0.8 + 0.02 * outputs)


def correlated(
    x: mx.array, m: mx.array, kernel: Sequence[int], stride: Sequence[int], before: Sequence[int], after: Sequence[int]
) -> mx.array:
    """The convolution of x, padded by `before` and `after`, with windows whose places have the matrices m."""
    grid = tuple(n + b + a for n, b, a in zip(x.shape[1:-1], before, after, strict=True))
    count, channels, outputs = len(x), x.shape[-1], m.shape[-1]
    out = [(n - k) // s + 1 for n, k, s in zip(grid, kernel, stride, strict=True)]
    shape = (count, *out, outputs)
    places = {*stride} == {1} and pays(channels, outputs, kernel, grid, out)
    if not places and not gathers(x) and min(*before, *after) >= 0:
        w = mx.moveaxis(m, -1, 0).reshape(outputs, *kernel, channels)
        return mx.conv_general(x, w, stride, ([*before], [*after]))
    x = padded(x, before, after)
    if not places:
        return (windows(x, kernel, stride) @ m.reshape(-1, outputs)).reshape(shape)
    starts = offsets(kernel, grid)
    rows = x.reshape(-1, channels)
    used = len(rows) - starts[-1]  # up to the last window that is inside of the grid
    m = m.reshape(-1, outputs) if len(m) == 1 else mx.contiguous(m).reshape(-1, outputs)
    total = rows[:used] @ m[:channels]
    for place, start in enumerate(starts[1:], 1):
        total = mx.addmm(total, rows[start : start + used], m[place * channels : (place + 1) * channels])
    if grid == tuple(out):
        return total.reshape(shape)
    return total[positions(count, grid, tuple(kernel), (1,) * len(out))[:, 0]].reshape(shape)


def forward(x: mx.array, w: mx.array, stride: Sequence[int], padding: Sequence[int]) -> mx.array:
    """The convolution of x with w."""
    m = mx.moveaxis(w.reshape(len(w), -1, w.shape[-1]), 0, -1)
    return correlated(x, m, w.shape[1:-1], stride, padding, padding)


@lru_cache(128)
def backwards(outputs: int, kernel: Sizes, phase: Sizes, stride: Sizes) -> tuple[Sizes, mx.array]:
    """Places of a window at a phase of the stride, last first: how many per axis, and their rows of w, (places, O)."""
    places = np.arange(math.prod(kernel)).reshape(kernel)[
        tuple(slice(r, None, s) for r, s in zip(phase, stride, strict=True))
    ]
    rows = np.flip(places).reshape(-1, 1) + np.arange(outputs) * math.prod(kernel)
    return places.shape, mx.array(rows.astype(np.uint32))


def transposed(
    y: mx.array, w: mx.array, stride: Sequence[int], padding: Sequence[int], extent: Sequence[int]
) -> mx.array:
    """The transpose of the convolution with w, from y to an x of the sizes `extent`.

    Positions of x with the same remainder by the stride meet the same places of the window: each such phase is a
    convolution of y with these places, backwards.
    """
    starts = [p // s for p, s in zip(padding, stride, strict=True)]  # of x, in steps of the stride
    counts = [-(-(p + n) // s) - q for p, n, s, q in zip(padding, extent, stride, starts, strict=True)]
    phases = []
    for phase in product(*map(range, stride)):
        kernel, rows = backwards(len(w), w.shape[1:-1], phase, tuple(stride))
        if 0 in kernel:  # a stride longer than the window
            phases.append(mx.zeros((len(y), *counts, w.shape[-1])))
            continue
        before = [k - 1 - q for k, q in zip(kernel, starts, strict=True)]
        after = [n + q - m for n, q, m in zip(counts, starts, y.shape[1:-1], strict=True)]
        matrices = w.reshape(-1, w.shape[-1])[rows]
        phases.append(correlated(y, matrices, kernel, (1,) * len(kernel), before, after))
    if len(phases) == 1:
        return phases[0]
    dimensions = len(extent)
    x = mx.stack(phases).reshape(*stride, len(y), *counts, -1)
    paired = [axis for i in range(dimensions) for axis in (dimensions + 1 + i, i)]
    whole = [n * s for n, s in zip(counts, stride, strict=True)]
    x = x.transpose(dimensions, *paired, -1).reshape(len(y), *whole, -1)
    inside = [slice(p - q * s, p - q * s + n) for p, q, s, n in zip(padding, starts, stride, extent, strict=True)]
    return mx.contiguous(x[(slice(None), *inside)])


def overlapped(
    x: mx.array, y: mx.array, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> mx.array:
    """The gradient of w for the gradient y of a convolution.

    Where there are many positions they are ordered by the first axis: its places are then slices, and windows are
    copied along the others alone. Where there are few, joining the slices' results would take longer than copying.
    """
    x = padded(x, padding, padding)
    count, outputs, first, once = len(x), y.shape[-1], y.shape[1], {*stride} == {1}
    mine = y.reshape(-1, outputs)
    if not gathers(x):
        for axis in range(len(kernel), 0, -1):
            size = y.shape[axis]
            every = (slice(None),) * axis
            x = mx.concatenate([x[(*every, slice(k, k + size))] for k in range(kernel[axis - 1])], axis=-1)
        return (mine.T @ x.reshape(len(mine), -1)).reshape(outputs, *kernel, -1)
    if len(mine) < MANY * outputs or max(kernel) == 1 and once:
        return (mine.T @ windows(x, kernel, stride)).reshape(outputs, *kernel, -1)
    rows = positions(count, (first,), (1,), (1,), first=True)[:, 0]
    mine = y.reshape(count * first, -1)[rows].reshape(-1, outputs).T
    if len(kernel) == 1 or not once:
        return (mine @ windows(x, kernel, stride, first=True)).reshape(outputs, *kernel, -1)
    copied = windows(x, (1, *kernel[1:]), stride, first=True)
    step = mine.shape[1] // first
    found = [mine @ copied[k * step : (k + first) * step] for k in range(kernel[0])]
    return mx.concatenate(found, axis=1).reshape(outputs, *kernel, -1)
