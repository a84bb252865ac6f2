"""Images of twice the size by nearest neighbours, and the kernel that does this and a convolution after it at once."""

from functools import reduce

import mlx.core as mx
import numpy as np

from models.derived import linear_function
from runtime.cuda_launch import available

# A pixel's copies meet neighbouring places of a window of 3 together. Along one axis, entry t of the kernel of 4 of the
# transposed convolution with stride 2 and padding 1 is the sum of the places that pixel q and its copy have in the
# window of pixel 2q + t - 1 of the result.
TOGETHER = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32)


def plain(x: mx.array) -> mx.array:
    """Every pixel as two by two, (B, H, W, C) -> (B, 2H, 2W, C)."""
    count, height, width, channels = x.shape
    wide = mx.broadcast_to(x[:, :, None, :, None, :], (count, height, 2, width, 2, channels))
    return wide.reshape(count, 2 * height, 2 * width, channels)


def gathered(x: mx.array, g: mx.array) -> mx.array:
    """The gradient by x (B, H, W, C) as a sum of four views of g, (B, 2H, 2W, C); MLX's took 1.3 of a UNet's 24 ms."""
    count, height, width, channels = x.shape
    g = g.reshape(count, height, 2, width, 2, channels).astype(mx.float32)
    return (g[:, :, 0, :, 0] + g[:, :, 0, :, 1] + g[:, :, 1, :, 0] + g[:, :, 1, :, 1]).astype(x.dtype)


by_views = linear_function(plain, gathered)


def double(x: mx.array) -> mx.array:
    """Nearest-neighbour upsampling, (B, H, W, C) -> (B, 2H, 2W, C)."""
    return by_views(x) if available(x) else plain(x)


def joined(w: mx.array) -> mx.array:
    """A convolution's weights (O, ...3, C), padding 1, as a transposed one's that also doubles, (C, ...4, O)."""
    sides = w.ndim - 2
    places = mx.array(reduce(np.kron, [TOGETHER] * sides)).astype(w.dtype)
    found = places @ w.reshape(len(w), -1, w.shape[-1]).transpose(2, 1, 0)
    return found.reshape(w.shape[-1], *[4] * sides, len(w))
