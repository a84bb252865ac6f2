"""Convolutions and transposed convolutions in 1 to 3 dimensions that also have a jvp (MLX's own have none)."""

import math

import mlx.core as mx
import mlx.nn as nn

from models import bias
from models.convolution_forms import Geometry, Sizes, correlate, spread
from models.doubling import double, joined
from runtime.cuda_launch import available
from runtime.errors import UsageError


class Convolution(nn.Module):
    """What Conv1d to ConvTranspose3d share; the numbers per dimension are one int or a list with one each.

    `Convolution.weight_gradient` (class attribute, read while tracing) chooses how the weight gradient is computed
    where stride, dilation and groups are 1: "convolution", "unfold" (MLX's own: patches and a matmul) or "auto": on a
    CPU in float32 as matrix products (models/convolution_products.py), and so are values and input gradients where that
    is faster, these with any stride; else a convolution except on Metal, where nobody has measured it. A convolution
    took about a quarter of unfold's time on one H100 (bf16, 3x3, 128 channels).
    """

    convolves = True  # runtime/graphs.py asks
    weight_gradient: str = "auto"
    dimensions: int
    transposed = False

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple | list = 3,
        stride: int | tuple | list = 1,
        padding: int | tuple | list | None = None,
        groups: int = 1,
        bias: bool = True,
        zero: bool = False,
        dilation: int | tuple | list = 1,
    ):
        super().__init__()
        if groups < 1 or inputs % groups or outputs % groups:
            raise UsageError(f"{type(self).__name__}: groups must divide the channels in ({inputs}) and out "
                             f"({outputs}), got {groups}.")  # fmt: skip
        sizes = self._sizes("kernel", kernel)
        dilated = self._sizes("dilation", dilation)
        if padding is None:
            padding = [0 if self.transposed else d * (k // 2) for k, d in zip(sizes, dilated, strict=True)]
        self.stride, self.padding = self._sizes("stride", stride), self._sizes("padding", padding, 0)
        self.dilation, self.groups = dilated, groups
        bound = 0.0 if zero else 1 / math.sqrt(inputs // groups * math.prod(sizes))
        self.inputs = inputs
        out, into = (inputs, outputs) if self.transposed else (outputs, inputs)
        self.weight = mx.random.uniform(-bound, bound, (out, *sizes, into // groups))
        if bias:
            self.bias = mx.zeros(outputs)

    def _sizes(self, name: str, given: int | tuple | list, least: int = 1) -> Sizes:
        """One number per dimension; raises UsageError for another count or less than `least`."""
        sizes = (given,) * self.dimensions if isinstance(given, int) else tuple(given)
        if len(sizes) != self.dimensions or min(sizes) < least:
            raise UsageError(f"{type(self).__name__}: {name} must be an int or {self.dimensions} of them, each at "
                             f"least {least}; got {given}.")  # fmt: skip
        return sizes

    def geometry(self, x: mx.array) -> Geometry:
        """How windows lie; raises UsageError unless x has rows, an axis per dimension and the channels."""
        if x.ndim != self.dimensions + 2 or x.shape[-1] != self.inputs:
            raise UsageError(f"{type(self).__name__}: x must have {self.dimensions + 2} axes, the last of size "
                             f"{self.inputs} (channels); got shape {tuple(x.shape)}.")  # fmt: skip
        choice = self.weight_gradient
        wanted = not mx.metal.is_available() if choice == "auto" else choice == "convolution"
        dense = self.groups == 1 and {*self.dilation} == {1}
        swap = wanted and dense and {*self.stride} == {1}
        products = dense and choice == "auto" and mx.default_device() == mx.Device(mx.cpu)
        return Geometry(self.stride, self.padding, self.dilation, self.groups, swap, products)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, ...S, inputs) -> (B, ...S', outputs), S' = (S + 2 padding - dilation (kernel - 1) - 1) // stride + 1."""
        geometry = self.geometry(x)
        return self.with_bias(correlate(geometry)(x, self.weight), geometry)

    def with_bias(self, y: mx.array, geometry: Geometry) -> mx.array:
        """y (B, ...S, outputs) and the bias, if there is one."""
        if "bias" not in self:
            return y
        if available(y):
            return bias.spread(y, self.bias)
        return bias.biased(y, self.bias) if geometry.multiplies(y, self.bias, strided=True) else y + self.bias


class Conv1d(Convolution):
    """(B, L, inputs) -> (B, L', outputs); weight (outputs, kernel, inputs / groups)."""

    dimensions = 1


class Conv2d(Convolution):
    """(B, H, W, inputs) -> (B, H', W', outputs); weight (outputs, *kernel, inputs / groups)."""

    dimensions = 2

    def __call__(self, x: mx.array, doubled: bool = False) -> mx.array:
        """(B, H, W, inputs) -> (B, H', W', outputs); doubled: of x at twice the size, by nearest neighbours.

        As matrix products and with windows of 3 x 3 that takes 4 instead of 9 multiplications a number (see joined).
        """
        if not doubled:
            return super().__call__(x)
        geometry = self.geometry(x)
        usual = self.weight.shape[1:-1] == (3, 3) and {*self.stride, *self.padding} == {1}
        if not (usual and geometry.multiplies(x, self.weight)):
            return super().__call__(double(x))
        extent = (2 * x.shape[1], 2 * x.shape[2])
        return self.with_bias(
            spread(geometry._replace(stride=(2, 2), swap=False), extent)(x, joined(self.weight)), geometry
        )


class Conv3d(Convolution):
    """(B, D, H, W, inputs) -> (B, D', H', W', outputs); weight (outputs, *kernel, inputs / groups)."""

    dimensions = 3


class ConvolutionTranspose(Convolution):
    """The transpose of a convolution from `outputs` to `inputs` channels; padding is 0 unless given.

    weight (inputs, *kernel, outputs / groups), PyTorch's (inputs, outputs / groups, *kernel) with the channels last.
    output_padding: positions more at the end of each axis, less than the stride.
    """

    transposed = True

    def __init__(self, inputs: int, outputs: int, *args, output_padding: int | tuple | list = 0, **options):
        super().__init__(inputs, outputs, *args, **options)
        self.output_padding = self._sizes("output_padding", output_padding, 0)
        if any(o >= s for o, s in zip(self.output_padding, self.stride, strict=True)):
            raise UsageError(f"{type(self).__name__}: output_padding must be less than stride={self.stride}, "
                             f"got {output_padding}.")  # fmt: skip

    def __call__(self, x: mx.array) -> mx.array:
        """(B, ...S, inputs) -> (B, ...S', outputs).

        S' = (S - 1) stride - 2 padding + dilation (kernel - 1) + 1 + output_padding.
        """
        per_axis = zip(x.shape[1:-1], self.weight.shape[1:-1], self.stride, self.padding, self.dilation,
                       self.output_padding, strict=True)  # fmt: skip
        geometry = self.geometry(x)
        extent = tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 + o for n, k, s, p, d, o in per_axis)
        return self.with_bias(spread(geometry, extent)(x, self.weight), geometry)


class ConvTranspose1d(ConvolutionTranspose):
    """(B, L, inputs) -> (B, L', outputs)."""

    dimensions = 1


class ConvTranspose2d(ConvolutionTranspose):
    """(B, H, W, inputs) -> (B, H', W', outputs)."""

    dimensions = 2


class ConvTranspose3d(ConvolutionTranspose):
    """(B, D, H, W, inputs) -> (B, D', H', W', outputs)."""

    dimensions = 3
