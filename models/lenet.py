"""LeNet as FastEstimator has it: three convolutions and two linear layers (after LeCun et al. 1998)."""

import mlx.core as mx
import mlx.nn as nn

from models.layers import check_sample, image_shape
from models.linear import Linear
from models.pooling import max_pool
from models.starts import with_bias
from runtime.errors import UsageError


def probabilities(logits: mx.array) -> mx.array:
    """The softmax over the last axis of logits (B, C), float32."""
    return mx.softmax(logits.astype(mx.float32), axis=-1)


class LeNet(nn.Module):
    """Images to class probabilities; 28 x 28 x 1 and 10 classes make 93,322 parameters.

    shape: [height, width, channels], at least 18 x 18. logits: give what the softmax takes instead. Layers start as
    PyTorch's. Raises UsageError for smaller images.
    """

    independent_rows = True

    def __init__(self, shape: tuple | list = (28, 28, 1), classes: int = 10, logits: bool = False):
        super().__init__()
        self.shape, self.logits = image_shape(self, shape), logits
        height, width, channels = self.shape
        if min(height, width) < 18:
            raise UsageError(f"LeNet: height and width must be at least 18, got {height} x {width}.")
        self.conv1 = with_bias(channels, 32, padding=0)
        self.conv2 = with_bias(32, 64, padding=0)
        self.conv3 = with_bias(64, 64, padding=0)
        rows, columns = (((n - 2) // 2 - 2) // 2 - 2 for n in (height, width))
        self.hidden = Linear(rows * columns * 64, 64)
        self.head = Linear(64, classes)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) -> (B, classes)."""
        check_sample(self, x, self.shape)
        h = x.astype(self.conv1.weight.dtype)
        # ReLU after pooling gives the same for a quarter of the work
        h = nn.relu(max_pool(self.conv1(h)))
        h = nn.relu(max_pool(self.conv2(h)))
        h = nn.relu(self.conv3(h)).reshape(len(x), -1)
        h = self.head(nn.relu(self.hidden(h)))
        return h if self.logits else probabilities(h)
