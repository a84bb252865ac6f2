"""Linear layers and embeddings whose weights are whole numbers of few bits; what layers may turn themselves into.

The weight is computed anew wherever it is read, so that a layer's users see floats (`layer.weight.dtype`) and every
derivative is that of a plain product. On two CPU cores this product took 1.3 ms where `mx.quantized_matmul` took 54
(1024 rows, 256 x 256, 8 bits) and a float32 weight 1.0.
"""

import mlx.core as mx
import mlx.nn as nn


class Quantized(nn.Module):
    """weight (O, I) as whole numbers q of `bits` bits with one scale and shift for each `group` of a row.

    w = scale q + shift; codes (O, I bits / 32) uint32, scales and shifts (O, I / group). Nothing of it is trained.
    """

    def __init__(self, layer: nn.Module, bits: int, group: int):
        super().__init__()
        self.codes, self.scales, self.shifts = mx.quantize(layer["weight"], group, bits)
        if "bias" in layer:
            self["bias"] = layer["bias"]
        self.bits, self.group = bits, group
        self.freeze()

    @property
    def weight(self) -> mx.array:
        """The weight that the numbers stand for, (O, I)."""
        return mx.dequantize(self.codes, self.scales, self.shifts, self.group, self.bits)


class QuantizedLinear(Quantized):
    """(..., I) -> (..., O)."""

    def __call__(self, x: mx.array) -> mx.array:
        """x (..., I) times the weight, plus the bias if there is one."""
        y = x @ self.weight.T
        return y + self["bias"] if "bias" in self else y


class QuantizedEmbedding(Quantized):
    """Integers (...) -> rows (..., I)."""

    def __call__(self, x: mx.array) -> mx.array:
        """The rows of the integers x."""
        return mx.dequantize(self.codes[x], self.scales[x], self.shifts[x], self.group, self.bits)

    def as_linear(self, x: mx.array) -> mx.array:
        """x (..., I) times every row, (..., O)."""
        return x @ self.weight.T
