"""Convolutions in 1 to 3 dimensions and their transposes, which also have a jvp (MLX's own have none).

<conv(x, w), y> is linear in x, in w and in y; leaving one of them out gives three bilinear functions: `correlate`, the
convolution; `spread`, its transpose; `overlap`, the gradient of the weights. Each has the other two as its derivatives,
so derivatives of every order and nesting exist.

Shapes, with one S per dimension: x (B, ...S, C), w (O, ...kernel, C / groups), y (B, ...S', O).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import mlx.core as mx

from models.bilinear import Bilinear, Stacked, bilinear
from models.convolution_products import forward, gathers, overlapped, transposed

Sizes = tuple[int, ...]


class Geometry(NamedTuple):
    """How windows lie on x, per dimension.

    swap: `overlap` as one convolution, for stride, dilation and groups of 1. products: matrix products for float32 on a
    CPU, for dilation and groups of 1; `correlate` and `overlap` of few channels with other strides are MLX's even so.
    """

    stride: Sizes
    padding: Sizes
    dilation: Sizes
    groups: int = 1
    swap: bool = False
    products: bool = False

    def multiplies(self, a: mx.array, b: mx.array, strided: bool = False) -> bool:
        """Whether a form of these arrays is made of products; strided: with any stride."""
        return self.products and (strided or {*self.stride} == {1}) and a.dtype == b.dtype == mx.float32


def plain(x: mx.array, w: mx.array, geometry: Geometry) -> mx.array:
    """MLX's convolution (B, ...S', O), which has a vjp alone."""
    if geometry.groups > 1 and x.ndim == 5:  # MLX refuses groups in 3-D
        parts = zip(mx.split(x, geometry.groups, axis=-1), mx.split(w, geometry.groups, axis=0), strict=True)
        return mx.concatenate([plain(a, b, geometry._replace(groups=1)) for a, b in parts], axis=-1)
    return mx.conv_general(x, w, geometry.stride, geometry.padding, geometry.dilation, groups=geometry.groups)


@lru_cache(1024)
def correlate(geometry: Geometry) -> Bilinear:
    """The convolution f(x, w) -> y."""

    def adjoint(x, w, y):
        return spread(geometry, tuple(x.shape[1:-1]))(y, w), overlap(geometry, tuple(w.shape[1:-1]))(x, y)

    def run(x, w):
        if geometry.multiplies(x, w, strided=gathers(x)):
            return forward(x, w, geometry.stride, geometry.padding)
        return plain(x, w, geometry)

    return bilinear(run, adjoint, stacked(correlate, geometry, (-1, 0, -1)))


@lru_cache(1024)
def spread(geometry: Geometry, extent: Sizes) -> Bilinear:
    """The transposed convolution f(y, w) -> x, where x has the sizes `extent`."""

    def run(y, w):
        if geometry.multiplies(y, w, strided=True):
            return transposed(y, w, geometry.stride, geometry.padding, extent)
        at = mx.zeros((y.shape[0], *extent, w.shape[-1] * geometry.groups), y.dtype)  # never computed
        return mx.vjp(lambda x: plain(x, w, geometry), [at], [y])[1][0]

    def adjoint(y, w, x):
        return correlate(geometry)(x, w), overlap(geometry, tuple(w.shape[1:-1]))(x, y)

    return bilinear(run, adjoint, stacked(lambda g: spread(g, extent), geometry, (-1, 0, -1)))


@lru_cache(1024)
def overlap(geometry: Geometry, kernel: Sizes) -> Bilinear:
    """The gradient of the weights f(x, y) -> w, where windows have the sizes `kernel`.

    Without swap MLX unfolds patches where groups is 1 and nothing is dilated, and refuses to vmap that.
    """

    def run(x, y):
        if geometry.multiplies(x, y, strided=gathers(x)):
            return overlapped(x, y, kernel, geometry.stride, geometry.padding)
        if geometry.swap:
            # w[o, k, c] = sum over b and s of x[b, s + k, c] y[b, s, o]: the batch and the channels change places.
            swapped = mx.conv_general(mx.swapaxes(x, 0, -1), mx.swapaxes(y, 0, -1), padding=geometry.padding)
            return mx.contiguous(mx.swapaxes(swapped, 0, -1))  # a strided gradient slows the optimizer down
        at = mx.zeros((y.shape[-1], *kernel, x.shape[-1] // geometry.groups), x.dtype)  # never computed
        return mx.vjp(lambda w: plain(x, w, geometry), [at], [y])[1][0]

    def adjoint(x, y, w):
        return spread(geometry, tuple(x.shape[1:-1]))(y, w), correlate(geometry)(x, w)

    return bilinear(run, adjoint, stacked(lambda g: overlap(g, kernel), geometry, (-1, -1, 0)))


def stacked(form: Callable[[Geometry], Bilinear], geometry: Geometry, axes: tuple[int, int, int]) -> Stacked:
    """The vmap of form(geometry): a longer batch where only the first array is stacked, else one group per member.

    axes: which axis of the first array, of the second and of the result is the channels (-1) or the weights' O (0).
    """

    def fold(v, is_stacked: bool, count: int, axis: int):
        v = v if is_stacked else mx.broadcast_to(v, (count, *v.shape))
        return v.flatten(0, 1) if axis == 0 else mx.moveaxis(v, 0, -2).flatten(-2, -1)

    def call(a, b, a_is: bool, b_is: bool):
        count = len(a if a_is else b)
        if axes[1] == 0 and not b_is:
            return mx.unflatten(form(geometry)(a.flatten(0, 1), b), 0, (count, -1))
        many = form(geometry._replace(groups=count * geometry.groups, swap=False, products=False))
        found = many(fold(a, a_is, count, axes[0]), fold(b, b_is, count, axes[1]))
        unfolded = mx.unflatten(found, axes[2], (count, -1))
        return unfolded if axes[2] == 0 else mx.moveaxis(unfolded, -2, 0)

    return call
