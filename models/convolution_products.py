"""Convolutions with dilation and groups of 1 as a few large matrix products, for float32 on a CPU.

On rows of a grid padded enough, a window's place is a constant offset: neighbours of all positions are one slice,
which costs no copy. Positions whose window sticks out of the grid are computed too, and cut off or met by zeros.

Shapes, with one S per dimension: x (B, ...S, C), w (O, ...kernel, C), y (B, ...S', O).
"""

import math
from collections.abc import Sequence
from itertools import product

import mlx.core as mx

FEW = 32  # numbers per row below which products are so thin that one with all of a window's places is faster


def padded(x: mx.array, before: Sequence[int], after: Sequence[int], images: int = 0) -> mx.array:
    """x with zeros around its spatial axes, or less of it where a number is negative, and `images` of zeros more."""
    ends = [n + min(a, 0) for n, a in zip(x.shape[1:-1], after, strict=True)]
    inside = tuple(slice(max(-b, 0), end) for b, end in zip(before, ends, strict=True))
    if min(*before, *after) < 0:
        x = x[(slice(None), *inside)]
    widths = [(max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True)]
    return mx.pad(x, [(0, images), *widths, (0, 0)]) if images or any(map(any, widths)) else x


def offsets(kernel: Sequence[int], grid: Sequence[int]) -> list[int]:
    """How many rows of the grid each of the window's places lies behind the first."""
    strides = [math.prod(grid[i + 1 :]) for i in range(len(grid))]
    return [sum(map(math.prod, zip(place, strides, strict=True))) for place in product(*map(range, kernel))]


def pays(w: mx.array, grid: Sequence[int], out: Sequence[int]) -> bool:
    """Whether `correlated` beats MLX, which copies all windows (C numbers a place) and takes one product.

    `correlated` computes for the whole grid and writes O numbers a place. The nanoseconds a number (.8, .3) and a
    multiplication (.02) were fitted to one Xeon's times (benchmarks/convolution.py).
    """
    outputs, channels = w.shape[0], w.shape[-1]
    if max(w.shape[1:-1]) == 1:
        return True
    waste = math.prod(grid) / math.prod(out)
    return waste * outputs * (0.3 + 0.02 * channels) < channels * (0.8 + 0.02 * outputs)


def correlated(x: mx.array, w: mx.array, before: Sequence[int], after: Sequence[int]) -> mx.array:
    """The convolution of x, padded by `before` and `after`, with w: a product a place of the window, or MLX's."""
    kernel = w.shape[1:-1]
    grid = [n + b + a for n, b, a in zip(x.shape[1:-1], before, after, strict=True)]
    out = [n - k + 1 for n, k in zip(grid, kernel, strict=True)]
    if not pays(w, grid, out):
        return mx.conv_general(padded(x, before, after), w)
    places = offsets(kernel, grid)
    # one more image of zeros, so that the last windows' rows exist
    rows = padded(x, before, after, images=int(places[-1] > 0)).reshape(-1, x.shape[-1])
    count = len(x) * math.prod(grid)
    weights = mx.swapaxes(w, 0, -1).reshape(x.shape[-1], -1, len(w)).swapaxes(0, 1)  # (places, C, O)
    total = rows[:count] @ weights[0]
    for start, weight in zip(places[1:], weights[1:], strict=True):
        total = mx.addmm(total, rows[start : start + count], weight)
    inside = tuple(slice(0, n) for n in out)
    return mx.contiguous(total.reshape(len(x), *grid, -1)[(slice(None), *inside)])


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
        part = mx.swapaxes(w[(slice(None), *(slice(r, None, s) for r, s in zip(phase, stride, strict=True)))], 0, -1)
        kernel = part.shape[1:-1]
        if 0 in kernel:  # a stride longer than the window
            phases.append(mx.zeros((len(y), *counts, w.shape[-1])))
            continue
        backwards = mx.contiguous(part[(slice(None), *(slice(None, None, -1) for _ in kernel))])
        before = [k - 1 - q for k, q in zip(kernel, starts, strict=True)]
        after = [n + q - m for n, q, m in zip(counts, starts, y.shape[1:-1], strict=True)]
        phases.append(correlated(y, backwards, before, after))
    if len(phases) == 1:
        return phases[0]
    dimensions = len(extent)
    x = mx.stack(phases).reshape(*stride, len(y), *counts, -1)
    paired = [axis for i in range(dimensions) for axis in (dimensions + 1 + i, i)]
    whole = [n * s for n, s in zip(counts, stride, strict=True)]
    x = x.transpose(dimensions, *paired, -1).reshape(len(y), *whole, -1)
    inside = [slice(p - q * s, p - q * s + n) for p, q, s, n in zip(padding, starts, stride, extent, strict=True)]
    return mx.contiguous(x[(slice(None), *inside)])


def overlapped(x: mx.array, y: mx.array, padding: Sequence[int]) -> mx.array:
    """The gradient of w for the gradient y of a convolution with stride 1.

    Places along the last axis are copied side by side, so that the products are few and wide; those along the others
    are offsets, unless there are few channels.
    """
    x = padded(x, padding, padding)
    kernel = [n - m + 1 for n, m in zip(x.shape[1:-1], y.shape[1:-1], strict=True)]
    for axis in range(len(kernel), 0 if kernel[-1] * x.shape[-1] < FEW else len(kernel) - 1, -1):
        size = y.shape[axis]
        every = (slice(None),) * axis
        x = mx.concatenate([x[(*every, slice(k, k + size))] for k in range(kernel[axis - 1])], axis=-1)
    grid = x.shape[1:-1]
    left = [n - m for n, m in zip(grid, y.shape[1:-1], strict=True)]
    places = offsets([n + 1 for n in left], grid)
    count = len(x) * math.prod(grid) - places[-1]
    outputs = y.shape[-1]
    mine = padded(y, [0] * len(left), left).reshape(-1, outputs)[:count].T
    rows = x.reshape(-1, x.shape[-1])
    found = mx.stack([mine @ rows[start : start + count] for start in places], axis=1)
    return found.reshape(outputs, *kernel, -1)
