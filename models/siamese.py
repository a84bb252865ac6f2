"""The siamese network of Koch, Zemel and Salakhutdinov (2015) for one-shot learning, laid out as FastEstimator's."""

import mlx.core as mx
import mlx.nn as nn

from models.layers import check_sample, image_shape
from models.linear import Linear
from models.pooling import max_pool
from models.starts import normal, with_bias
from runtime.errors import UsageError


class SiameseEncoder(nn.Module):
    """Images to vectors in [0, 1] by four convolutions and a linear layer.

    shape: [height, width, channels], at least 65 x 65; raises UsageError for less. hidden: numbers of a vector.
    channels: of the first convolution. Convolutions start from N(0, .01^2), the linear layer from N(0, .2^2), biases
    from N(.5, .01^2), as in the paper.
    """

    independent_rows = True

    def __init__(self, shape: tuple | list = (105, 105, 1), hidden: int = 4096, channels: int = 64):
        super().__init__()
        self.shape = image_shape(self, shape)
        height, width, colours = self.shape
        if min(height, width) < 65:
            raise UsageError(f"SiameseEncoder: height and width must be at least 65, got {height} x {width}.")
        widths, kernels = [colours, channels, 2 * channels, 2 * channels, 4 * channels], (10, 7, 4, 4)
        self.convolutions = [
            normal(with_bias(a, b, kernel, padding=0), 0.01, bias=(0.5, 0.01))
            for a, b, kernel in zip(widths, widths[1:], kernels, strict=False)
        ]
        for kernel in kernels[:3]:
            height, width = (height - kernel + 1) // 2, (width - kernel + 1) // 2
        flat = (height - kernels[3] + 1) * (width - kernels[3] + 1) * widths[-1]
        self.leave = normal(Linear(flat, hidden), 0.2, bias=(0.5, 0.01))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) -> (B, hidden)."""
        check_sample(self, x, self.shape)
        h = x.astype(self.leave.weight.dtype)
        for index, convolution in enumerate(self.convolutions):
            h = convolution(h)
            h = nn.relu(max_pool(h) if index < 3 else h)
        return mx.sigmoid(self.leave(h.reshape(len(x), -1)))


class SiameseNetwork(nn.Module):
    """Two images to the probability that they show the same: 38,951,745 parameters by default.

    logits: give what the sigmoid takes instead. shape, hidden, channels: as SiameseEncoder has them.
    """

    independent_rows = True

    def __init__(
        self, shape: tuple | list = (105, 105, 1), hidden: int = 4096, channels: int = 64, logits: bool = False
    ):
        super().__init__()
        self.logits = logits
        self.encoder = SiameseEncoder(shape, hidden, channels)
        self.head = normal(Linear(hidden, 1), 0.2, bias=(0.5, 0.01))

    def __call__(self, first: mx.array, second: mx.array) -> mx.array:
        """Two of (B, H, W, C) -> (B, 1), the same in either order."""
        h = self.head(mx.abs(self.encoder(first) - self.encoder(second)))
        return h if self.logits else mx.sigmoid(h.astype(mx.float32))
