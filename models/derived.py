"""Makes a kernel, which MLX can't differentiate, a function whose derivatives are those of MLX's operations."""

from collections.abc import Callable
from typing import cast

import mlx.core as mx


def derived(kernel: Callable, plain: Callable) -> Callable[..., list[mx.array]]:
    """A kernel, a function of arrays that gives a list, whose jvp, vjp and vmap are those of the operations `plain`."""

    @mx.custom_function
    def f(*arrays):
        # without stop_gradient MLX would differentiate this body instead
        return kernel(*(mx.stop_gradient(v) for v in arrays))

    @f.jvp
    def _(primals, tangents):
        return mx.jvp(plain, primals, filled(primals, tangents))[1]

    @f.vjp
    def _(primals, cotangents, _outputs):
        return mx.vjp(plain, primals, cotangents)[1]

    @f.vmap
    def _(inputs, axes):
        found = mx.vmap(plain, in_axes=tuple(axes))(*inputs)
        return found, [0] * len(found)

    return cast(Callable[..., list[mx.array]], f)


def filled(primals, tangents) -> list[mx.array]:
    """The tangents, zeros where there is none."""
    return [mx.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True)]
