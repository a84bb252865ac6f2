"""Functions linear in each of two arrays, with every derivative, also where MLX has none or a wrong one."""

from collections.abc import Callable
from typing import cast

import mlx.core as mx

from runtime.custom import custom_function

Bilinear = Callable[[mx.array, mx.array], mx.array]
Adjoint = Callable[[mx.array, mx.array, mx.array], tuple[mx.array, mx.array]]
Stacked = Callable[[mx.array, mx.array, bool, bool], mx.array]


def bilinear(plain: Bilinear, adjoint: Adjoint, stacked: Stacked) -> Bilinear:
    """`plain`, f(a, b), under jvp, vjp, vmap and whatever nesting of them the other two functions allow.

    adjoint(a, b, cotangent) gives the cotangents of a and b. stacked(a, b, a_is, b_is) is vmap: those of a and b that
    are stacked have one more axis, in front, and so has what it returns. MLX must be able to vmap
    `plain` as well, though what comes out goes unused.
    """

    @custom_function
    def call(a, b):
        # Without stop_gradient MLX would differentiate this body instead.
        return plain(mx.stop_gradient(a), mx.stop_gradient(b))

    typed = cast(Bilinear, call)  # MLX's stub says that it returns an object

    @call.jvp
    def _(primals, tangents):
        (a, b), (da, db) = primals, tangents
        terms = [] if da is None else [typed(da, b)]  # f(da, b) + f(a, db)
        terms += [] if db is None else [typed(a, db)]
        return sum(terms[1:], terms[0])

    @call.vjp
    def _(primals, cotangent, _output):
        a, b = primals
        return adjoint(a, b, cotangent)

    # Without a rule vmap would take the body with its stop_gradient: gradients of zero, and no error.
    @call.vmap
    def _(inputs, axes):
        (a, b), (a_is, b_is) = inputs, (axis is not None for axis in axes)
        a = mx.moveaxis(a, axes[0], 0) if a_is else a
        b = mx.moveaxis(b, axes[1], 0) if b_is else b
        return stacked(a, b, a_is, b_is), 0

    return typed
