"""Layer norm and activations with derivatives written out: one fused kernel each where MLX's own take many passes.

MLX differentiates tanh by cosh and cubes by pow, and has no fused jvp of mx.fast.layer_norm. All work under jvp, vjp,
vmap and their nesting.
"""

import math
from collections.abc import Callable
from typing import cast

import mlx.core as mx

from runtime.custom import custom_function

Elementwise = Callable[[mx.array], mx.array]


def widened(x: mx.array) -> mx.array:
    """x (...) in float32; float64 stays."""
    return x if x.dtype == mx.float64 else x.astype(mx.float32)


def with_slope(function: Elementwise, slope: Elementwise) -> Elementwise:
    """An elementwise function of one array whose derivative is `slope`."""

    fused = mx.compile(function)  # for calls outside of a compiled step

    @custom_function
    def call(x):
        # without stop_gradient MLX would differentiate this body instead
        return fused(mx.stop_gradient(x))

    @call.jvp
    def _(primal, tangent):
        return tangent * slope(primal)

    @call.vjp
    def _(primal, cotangent, _output):
        return cotangent * slope(primal)

    @call.vmap
    def _(inputs, axes):
        return function(inputs), axes

    return cast(Elementwise, call)


def silu_slope(x: mx.array) -> mx.array:
    """The derivative of x sigmoid(x), elementwise."""
    # Not mx.sigmoid: compiled, it would be the value's too, and an operation that two kernels share is left out of
    # both, for MLX's own loop on a CPU, which takes 20 times as long. Below -40 the slope is 0 within rounding, and the
    # square in its own derivative would overflow.
    x = mx.maximum(x, -40)
    s = 1 / (1 + mx.exp(-x))
    return s * (1 + x * (1 - s))


def erf_gelu_slope(x: mx.array) -> mx.array:
    """The derivative of x Phi(x), elementwise."""
    x = apart(x)
    return 0.5 * (1 + mx.erf(x / math.sqrt(2))) + x * mx.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772


def selu_slope(x: mx.array) -> mx.array:
    """The derivative of SELU (arXiv 1706.02515, equation 2), elementwise."""
    x = apart(x)
    return SCALE * mx.where(x > 0, 1.0, ALPHA * mx.exp(mx.minimum(x, 0)))


ROOT, CUBE = math.sqrt(2 / math.pi), 0.044715


def plain_gelu(x: mx.array) -> mx.array:
    """GELU in its tanh form (arXiv 1606.08415, section 2), elementwise."""
    return 0.5 * x * (1 + mx.tanh(ROOT * x * (1 + CUBE * x * x)))


def gelu_slope(x: mx.array) -> mx.array:
    """The derivative of `plain_gelu`, elementwise."""
    t = mx.tanh(ROOT * x * (1 + CUBE * x * x))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * ROOT * (1 + 3 * CUBE * x * x)


def apart(x: mx.array, swapped: bool = False) -> mx.array:
    """x (...) as another node of the graph (a third one if swapped), so that equal operations are not merged.

    mx.compile gives an operation that two kernels share a kernel of its own, with an array for its result; where it is
    cheaper done twice, this keeps the two apart. A product with 1 costs nothing inside of a kernel.
    """
    return mx.multiply(1, x) if swapped else mx.multiply(x, 1)


def plain_gated(gate: mx.array, up: mx.array) -> mx.array:
    """silu(gate) up, elementwise in float32 inside."""
    wide = apart(gate).astype(mx.float32)
    return (wide * mx.sigmoid(wide) * apart(up).astype(mx.float32)).astype(gate.dtype)


@custom_function
def _gated(gate, up):
    return plain_gated(mx.stop_gradient(gate), mx.stop_gradient(up))


@_gated.jvp
def _(primals, tangents):
    (gate, up), (dgate, dup) = primals, tangents
    along_gate = 0 if dgate is None else dgate * silu_slope(gate) * up
    return along_gate + (0 if dup is None else dup * gate * mx.sigmoid(gate))


@_gated.vjp
def _(primals, cotangent, _output):
    # one kernel for either gradient, and nothing that is kept for them from the value
    g, u, c = (a.astype(mx.float32) for a in (*primals, cotangent))
    s = mx.sigmoid(g)
    dgate = (c * u * (s * (1 + g * (1 - s)))).astype(primals[0].dtype)
    g, c = (apart(a, swapped=True).astype(mx.float32) for a in (primals[0], cotangent))
    return dgate, (c * g * mx.sigmoid(g)).astype(primals[1].dtype)


@_gated.vmap
def _(inputs, axes):
    return mx.vmap(plain_gated, in_axes=axes)(*inputs), 0


gated = cast(Callable[[mx.array, mx.array], mx.array], _gated)
silu = with_slope(lambda x: x * mx.sigmoid(x), silu_slope)
gelu = with_slope(plain_gelu, gelu_slope)
erf_gelu = with_slope(lambda x: 0.5 * x * (1 + mx.erf(x / math.sqrt(2))), erf_gelu_slope)
selu = with_slope(lambda x: SCALE * mx.where(x > 0, x, ALPHA * (mx.exp(mx.minimum(x, 0)) - 1)), selu_slope)
# alone in its kernel, tanh would be MLX's own loop as well
tanh = with_slope(lambda x: apart(mx.tanh(x)), lambda x: 1 - mx.square(mx.tanh(apart(x, swapped=True))))


def standardised(x: mx.array) -> mx.array:
    """Layer norm without weights over the last axis of x (..., C), eps 1e-6, statistics in float32."""
    return mx.fast.layer_norm(x, None, None, 1e-6)


@custom_function
def _layer_norm(x):
    """`standardised` with a fused jvp: its Jacobian (1 - 11'/n - yy'/n) / std is symmetric, so it is MLX's vjp."""
    return standardised(mx.stop_gradient(x))


@_layer_norm.jvp
def _(primal, tangent):
    return mx.vjp(standardised, [primal], [tangent])[1][0]


@_layer_norm.vjp
def _(primal, cotangent, _output):
    return mx.vjp(standardised, [primal], [cotangent])[1][0]


@_layer_norm.vmap
def _(inputs, axes):
    return mx.vmap(standardised, in_axes=axes)(inputs), 0


layer_norm = cast(Elementwise, _layer_norm)
