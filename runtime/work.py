"""How much work a layer is, in closed form: floating-point operations (a multiply-add is two) and bytes moved.

Products count exactly: linear layers, convolutions and attention. A norm counts `NORM` operations a value, everything
else one a value that it gives. Bytes are the least that must be read and written: inputs, weights and outputs, each
once.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

NORM = 7  # a value: into the mean 1, into the variance 3 (subtract, square, add), times its root 1, scale and shift 2


class Work(NamedTuple):
    """Floating-point operations and bytes."""

    flops: int = 0
    moved: int = 0

    def __add__(self, other: tuple) -> "Work":  # type: ignore[override]
        return Work(self.flops + other[0], self.moved + other[1])


def size_of(arrays: Sequence[mx.array]) -> int:
    """Bytes of arrays of any shape."""
    return sum(array.nbytes for array in arrays)


def attention(q: mx.array, k: mx.array, v: mx.array) -> int:
    """Operations of attention: q (B, H, T, D), k (B, h, T', D), v (B, h, T', E); two products of T x T' a head."""
    return 2 * math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])


def product(layer: nn.Module, x: mx.array, out: mx.array) -> int | None:
    """Operations of a layer's product of its input x (B, ...) with its weight, None for a layer without one.

    A weight of 3 and more axes is a convolution's (out, *kernel, in / groups); a transposed one meets every value of
    its input instead of its output.
    """
    weight = layer.get("weight")
    if not isinstance(weight, mx.array) or isinstance(layer, nn.Embedding):
        return None
    if weight.ndim >= 3:
        transposed = "Transpose" in type(layer).__name__
        # a value of x meets every number of the weight with its input channel, a value of out those with its own
        return 2 * (x.size * weight.size // x.shape[-1] if transposed else out.size * weight.size // weight.shape[0])
    return 2 * out.size * weight.shape[1] if isinstance(layer, nn.Linear) else None


class Layer:
    """The work of one call of a layer: its inputs, its own weights by name, its outputs.

    counted: False for a layer that only calls others, whose own work (sums, shapes) is not known.
    """

    def __init__(self, layer: nn.Module, inputs: Sequence[mx.array], weights: Sequence[mx.array],
                 outputs: Sequence[mx.array], counted: bool = True):  # fmt: skip
        self.counted, self.made = counted, sum(out.size for out in outputs)
        self.product = product(layer, inputs[0], outputs[0]) if inputs and outputs else None
        self.norm = type(layer).__name__.endswith("Norm")
        picks = isinstance(layer, nn.Embedding)  # reads only the rows it picks
        self.inputs, self.outputs = size_of(inputs), size_of(outputs)
        self.weights = self.outputs if picks else size_of(weights)
        self.biased = self.product is not None and len(weights) > 1

    def forward(self) -> Work:
        """Values: the product and the sum of a bias, or the elementwise operations."""
        flops = self.made * (NORM if self.norm else 1) if self.product is None else self.product
        return self._if_counted(flops + self.made * self.biased, self.inputs + self.weights + self.outputs)

    def input_gradient(self) -> Work:
        """The gradient of the input: as much as the forward product, or as the elementwise operations."""
        flops = self.made * (NORM if self.norm else 1) if self.product is None else self.product
        return self._if_counted(flops, self.outputs + self.weights + self.inputs)

    def weight_gradient(self, weight: mx.array) -> Work:
        """The gradient of one of its weights: a product for a matrix or kernel, a sum over rows for a bias or scale."""
        whole = self.product is not None and weight.ndim > 1
        flops = self.product if whole and self.product is not None else self.made * (2 if self.norm else 1)
        return self._if_counted(flops, self.outputs + self.inputs * whole + weight.nbytes)

    def _if_counted(self, flops: int, moved: int) -> Work:
        return Work(flops, moved) if self.counted else Work()
