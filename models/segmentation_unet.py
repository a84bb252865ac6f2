"""UNets for segmentation, plain (Ronneberger et al., arXiv 1505.04597) and with attention gates (arXiv 1804.03999).

Laid out as FastEstimator's: padded convolutions without norm, upsampling followed by a convolution.
"""

import mlx.core as mx
import mlx.nn as nn

from models.batch_norm import BatchNorm
from models.layers import check_sample, image_shape
from models.pooling import double_bilinear, max_pool
from models.starts import he_normal, with_bias
from runtime.errors import UsageError

LEVELS = 4  # halvings of the image


class UNetEncoderBlock(nn.Module):
    """Two 3x3 convolutions with ReLU, and the largest of every 2 x 2."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1, self.conv2 = he_normal(inputs, outputs), he_normal(outputs, outputs)

    def __call__(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """(B, H, W, inputs) -> (B, H, W, outputs) and its pooled form (B, H / 2, W / 2, outputs)."""
        h = nn.relu(self.conv2(nn.relu(self.conv1(x))))
        return h, max_pool(h)


class UNetDecoderBlock(nn.Module):
    """Two 3x3 convolutions of `middle` channels, twice the size, one more to `outputs`; ReLU after each.

    bilinear: upsampling with aligned corners; else nearest neighbours.
    """

    def __init__(self, inputs: int, middle: int, outputs: int, bilinear: bool = False):
        super().__init__()
        self.bilinear = bilinear
        self.conv1, self.conv2 = he_normal(inputs, middle), he_normal(middle, middle)
        self.conv3 = he_normal(middle, outputs)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, inputs) -> (B, 2H, 2W, outputs)."""
        h = nn.relu(self.conv2(nn.relu(self.conv1(x))))
        return nn.relu(self.conv3(double_bilinear(h)) if self.bilinear else self.conv3(h, doubled=True))


class AttentionBlock(nn.Module):
    """A gate per pixel, from 0 to 1, that what the decoder knows puts on the encoder's map (arXiv 1804.03999)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.decoder, self.decoder_norm = with_bias(inputs, outputs, kernel=1), BatchNorm(outputs)
        self.encoder, self.encoder_norm = with_bias(inputs, outputs, kernel=1), BatchNorm(outputs)
        self.gate, self.gate_norm = with_bias(outputs, 1, kernel=1), BatchNorm(1)

    def __call__(self, decoded: mx.array, encoded: mx.array) -> mx.array:
        """decoded and encoded (B, H, W, inputs) -> encoded times its gate."""
        both = self.decoder_norm(self.decoder(decoded)) + self.encoder_norm(self.encoder(encoded))
        return encoded * mx.sigmoid(self.gate_norm(self.gate(nn.relu(both))))


class UNet(nn.Module):
    """Images to a probability per pixel and output channel; 128 x 128 x 1 and one output: 34,512,193 parameters.

    shape: [height, width, channels], both multiples of 16. outputs: channels of the result. channels: of the first
    block; each of four levels doubles them. logits: give what the sigmoid takes instead. Convolutions start from He's
    normal with biases of zero. Raises UsageError for sizes that can't be halved four times.
    """

    bilinear = False

    independent_rows = True

    def __init__(self, shape: tuple | list = (128, 128, 1), outputs: int = 1, channels: int = 64, logits: bool = False):
        super().__init__()
        self.shape, self.logits = image_shape(self, shape), logits
        height, width, colours = self.shape
        if min(height, width) < 2**LEVELS or height % 2**LEVELS or width % 2**LEVELS:
            raise UsageError(f"{type(self).__name__}: height and width must be multiples of {2**LEVELS}, got "
                             f"{height} x {width}.")  # fmt: skip
        widths = [channels << i for i in range(LEVELS)]
        self.encoders = [UNetEncoderBlock(a, b) for a, b in zip([colours, *widths], widths, strict=False)]
        deepest = widths[-1]
        self.bottleneck = UNetDecoderBlock(deepest, 2 * deepest, deepest, self.bilinear)
        self.decoders = [UNetDecoderBlock(2 * w, w, w // 2, self.bilinear) for w in widths[:0:-1]]
        self.conv1, self.conv2 = he_normal(2 * channels, channels), he_normal(channels, channels)
        self.head = he_normal(channels, outputs, kernel=1)

    def gated(self, level: int, decoded: mx.array, encoded: mx.array) -> mx.array:
        """What of the encoder's map at `level` (0 the finest) the decoder is shown: here all."""
        return encoded

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, C) -> (B, H, W, outputs)."""
        check_sample(self, x, self.shape)
        h, left = x.astype(self.head.weight.dtype), []
        for encoder in self.encoders:
            encoded, h = encoder(h)
            left.append(encoded)
        h = self.bottleneck(h)
        for level in range(LEVELS - 1, -1, -1):
            h = mx.concatenate([h, self.gated(level, h, left[level])], axis=-1)
            if level:
                h = self.decoders[LEVELS - 1 - level](h)
        h = self.head(nn.relu(self.conv2(nn.relu(self.conv1(h)))))
        return h if self.logits else mx.sigmoid(h.astype(mx.float32))


class AttentionUNet(UNet):
    """The UNet with bilinear upsampling and an attention gate on every skip connection: 35,215,245 parameters."""

    bilinear = True

    def __init__(self, shape: tuple | list = (128, 128, 1), outputs: int = 1, channels: int = 64, logits: bool = False):
        super().__init__(shape, outputs, channels, logits)
        self.gates = [AttentionBlock(channels << i, channels << i) for i in range(LEVELS)]

    def gated(self, level: int, decoded: mx.array, encoded: mx.array) -> mx.array:
        """The encoder's map times the gate of its level."""
        return self.gates[level](decoded, encoded)
