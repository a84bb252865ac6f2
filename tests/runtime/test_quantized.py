"""Layers of whole numbers of few bits against their definition in NumPy."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from runtime.quantized import QuantizedEmbedding, QuantizedLinear


def dequantised(codes, scales, shifts, bits):
    """w = scale q + shift from words of 32 bits, the least significant first; in float64."""
    whole = np.array(codes)
    stream = np.unpackbits(whole.view(np.uint8).reshape(len(whole), -1), axis=1, bitorder="little")
    numbers = stream.reshape(len(whole), -1, bits) @ (1 << np.arange(bits))
    scales, shifts = np.array(scales, np.float64), np.array(shifts, np.float64)
    return (numbers.reshape(*scales.shape, -1) * scales[..., None] + shifts[..., None]).reshape(len(whole), -1)


@pytest.mark.parametrize("bits", [8, 6, 4, 2])
def test_a_linear_layer_multiplies_by_the_dequantised_weight(bits):
    mx.random.seed(0)
    plain = nn.Linear(128, 5)
    layer = QuantizedLinear(plain, bits, 32)
    weight = dequantised(layer.codes, layer.scales, layer.shifts, bits)
    x, dx = np.random.default_rng(0).normal(size=(2, 3, 128)).astype(np.float32)
    wanted = x @ weight.T + np.array(plain.bias, np.float64)
    np.testing.assert_allclose(np.array(layer(mx.array(x))), wanted, atol=1e-5)
    tangents = mx.jvp(layer, [mx.array(x)], [mx.array(dx)])[1][0]
    np.testing.assert_allclose(np.array(tangents), dx @ weight.T, atol=1e-5)
    gradient = mx.grad(lambda x: layer(x).square().sum())(mx.array(x))
    np.testing.assert_allclose(np.array(gradient), 2 * wanted @ weight, atol=1e-4)
    steps = np.array(layer.scales)  # half a step is the most that rounding can move a number, a whole one at the ends
    off = np.abs(weight - np.array(plain.weight)).reshape(5, 4, 32)
    assert (off <= 1.01 * np.abs(steps)[..., None]).all() and off.max() > 0
    assert layer.weight.dtype == mx.float32 and not layer.trainable_parameters()


def test_an_embedding_gives_rows_of_the_dequantised_weight():
    layer = QuantizedEmbedding(nn.Embedding(7, 64), 4, 32)
    weight = dequantised(layer.codes, layer.scales, layer.shifts, 4)
    rows = np.array([[0, 6], [3, 3]])
    np.testing.assert_allclose(np.array(layer(mx.array(rows))), weight[rows], atol=1e-6)
    x = np.ones((2, 64), np.float32)
    np.testing.assert_allclose(np.array(layer.as_linear(mx.array(x))), x @ weight.T, atol=1e-5)
