"""Makes kernels, which MLX can't differentiate, functions with every derivative."""

from collections.abc import Callable
from typing import cast

import mlx.core as mx

from runtime.custom import custom_function


def derived(kernel: Callable, plain: Callable) -> Callable[..., list[mx.array]]:
    """A kernel, a function of arrays that gives a list, whose jvp, vjp and vmap are those of the operations `plain`."""

    @custom_function
    def f(*arrays):
        # without stop_gradient MLX would differentiate this body instead
        return kernel(*(mx.stop_gradient(v) for v in arrays))

    # of a function of one array, rules are given that array, not a list of one
    @f.jvp
    def _(primals, tangents):
        primals, tangents = several(primals), several(tangents)
        return mx.jvp(plain, primals, filled(primals, tangents))[1]

    @f.vjp
    def _(primals, cotangents, _outputs):
        found = mx.vjp(plain, several(primals), cotangents)[1]
        return found[0] if isinstance(primals, mx.array) else found

    @f.vmap
    def _(inputs, axes):
        found = mx.vmap(plain, in_axes=tuple(several(axes)))(*several(inputs))
        return found, [0] * len(found)

    return cast(Callable[..., list[mx.array]], f)


def several(given) -> list:
    """A list or tuple as it is, anything else as a list of one."""
    return list(given) if isinstance(given, list | tuple) else [given]


def filled(primals, tangents) -> list[mx.array]:
    """The tangents, zeros where there is none."""
    return [mx.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True)]


def fused(plain: Callable, forward: Callable, tangent: Callable, backward: Callable) -> Callable[..., list[mx.array]]:
    """f(*arrays) -> [y, *statistics without derivatives], by kernels; `plain` is the same in MLX's operations.

    forward(*arrays) gives that list, tangent(arrays, tangents) y's jvp as [ty], where a tangent that is None is zero,
    backward(*arrays, *statistics, g) the gradients. Derivatives of these two, and everything under vmap, are those of
    `plain`: right, but not fast.
    """

    def first(*arrays):
        return plain(*arrays)[:1]

    @custom_function
    def f(*arrays):
        return forward(*(mx.stop_gradient(v) for v in arrays))  # as in `derived`

    @f.jvp
    def _(primals, tangents):
        count, moving = len(primals), [i for i, t in enumerate(tangents) if t is not None]

        def split(arrays):
            along = dict(zip(moving, arrays[count:], strict=True))
            return list(arrays[:count]), [along.get(i) for i in range(count)]

        def plain_tangent(*arrays):
            own, along = split(arrays)
            return mx.jvp(first, own, filled(own, along))[1]

        given = [*primals, *(tangents[i] for i in moving)]
        moved = derived(lambda *arrays: tangent(*split(arrays)), plain_tangent)(*given)
        return [*moved, *(mx.zeros_like(s) for s in plain(*primals)[1:])]

    @f.vjp
    def _(primals, cotangents, outputs):
        # the statistics are functions of the primals in `plain`, which is what makes second derivatives right
        def backward_plain(*arrays):
            return mx.vjp(first, list(arrays[: len(primals)]), [arrays[-1]])[1]

        statistics = [mx.stop_gradient(s) for s in outputs[1:]]
        return derived(backward, backward_plain)(*primals, *statistics, cotangents[0])

    @f.vmap
    def _(inputs, axes):
        found = mx.vmap(plain, in_axes=tuple(axes))(*inputs)
        return found, [0] * len(found)

    return cast(Callable[..., list[mx.array]], f)


def linear_function(
    plain: Callable[[mx.array], mx.array], transpose: Callable[[mx.array, mx.array], mx.array]
) -> Callable:
    """A linear function of one array (...), whose gradient is transpose(x, cotangent), in whose operations it goes on.

    Its jvp is `plain` of the tangent.
    """

    @custom_function
    def f(x):
        return plain(mx.stop_gradient(x))  # as in `derived`

    @f.jvp
    def _(_x, tangent):
        return plain(tangent)

    @f.vjp
    def _(x, cotangent, _y):
        return transpose(x, cotangent)

    @f.vmap
    def _(x, axis):
        return mx.vmap(plain, in_axes=axis)(x), 0

    return cast(Callable[[mx.array], mx.array], f)
