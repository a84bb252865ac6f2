"""Operations and bytes of layers: by hand, and by arrays of ones, whose products sum to their multiplications."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from models.convolution import Conv1d, Conv2d, Conv3d, ConvTranspose2d
from models.group_norm import GroupNorm
from models.linear import Linear
from runtime.roofline import Roof, best, measured
from runtime.work import NORM, Layer, Work, attention


def of(layer, x):
    weights = [array for array in layer.values() if isinstance(array, mx.array)]
    return Layer(layer, [x], weights, [layer(x)])


def multiplications(layer, x):
    layer.update({"weight": mx.ones_like(layer.weight)})
    if "bias" in layer:
        layer.update({"bias": mx.zeros_like(layer.bias)})
    return round(float(np.array(layer(mx.ones_like(x))).sum()))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(7, 11), (3, 5, 7)),
        (Linear(7, 11), (15, 7)),
        (nn.Conv1d(3, 4, 3, stride=2), (2, 9, 3)),
        (nn.Conv2d(3, 4, (3, 2), stride=2), (2, 9, 8, 3)),
        (nn.Conv2d(4, 6, 3, groups=2), (2, 7, 7, 4)),
        (nn.Conv3d(2, 3, 2), (1, 4, 5, 6, 2)),
        (nn.ConvTranspose2d(3, 5, 3, stride=2), (2, 4, 4, 3)),
        (Conv1d(3, 4, 3, padding=0), (2, 9, 3)),
        (Conv2d(4, 6, 3, stride=2, padding=0, groups=2), (2, 7, 7, 4)),
        (Conv2d(3, 4, 3, padding=0, dilation=2), (2, 7, 7, 3)),
        (Conv3d(2, 3, 2, padding=0), (1, 4, 5, 6, 2)),
        (ConvTranspose2d(4, 6, 3, stride=2, padding=0), (2, 4, 4, 4)),
        (ConvTranspose2d(4, 6, 3, stride=2, padding=0, groups=2), (2, 4, 4, 4)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "x".join(map(str, value)),
)
def test_products_count_two_for_every_multiplication(layer, shape):
    x = mx.zeros(shape)
    work, out = of(layer, x), layer(x)
    once = 2 * multiplications(layer, x)
    moved = 4 * (x.size + layer.weight.size + out.size)
    assert work.forward() == (once + out.size, moved + 4 * layer.bias.size)
    assert work.input_gradient() == (once, moved + 4 * layer.bias.size)
    assert work.weight_gradient(layer.weight) == (once, moved)
    assert work.weight_gradient(layer.bias) == (out.size, 4 * (out.size + layer.bias.size))


def test_padding_counts_as_multiplied():
    x = mx.zeros((2, 8, 8, 3))
    assert of(Conv2d(3, 4, 3, bias=False), x).forward().flops == 2 * (2 * 8 * 8 * 4) * 3 * 3 * 3


def test_attention_is_two_products_of_queries_by_keys():
    q, k, v = mx.ones((2, 6, 5, 8)), mx.ones((2, 3, 7, 8)), mx.ones((2, 3, 7, 4))
    wide = [mx.repeat(array, 2, axis=1) for array in (k, v)]
    scores = q @ wide[0].swapaxes(-1, -2)  # a sum of 8 ones each
    values = mx.ones_like(scores) @ wide[1]
    assert attention(q, k, v) == 2 * round(float(np.array(scores).sum() + np.array(values).sum()))


@pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.RMSNorm(8), nn.GroupNorm(2, 8), nn.BatchNorm(8), GroupNorm(8)])
def test_norms_count_a_fixed_number_a_value(norm):
    work = of(norm, mx.ones((2, 4, 4, 8)))
    assert work.forward().flops == NORM * 256 and work.input_gradient().flops == NORM * 256
    assert work.weight_gradient(mx.ones(8)).flops == 2 * 256  # times the normalised values, summed


def test_other_layers_count_one_a_value_and_what_they_read():
    x = mx.zeros((2, 3), mx.bfloat16)
    assert Layer(nn.ReLU(), [x], [], [x]).forward() == (6, 24)
    table, picked = nn.Embedding(1000, 4), mx.zeros((5, 4))
    assert Layer(table, [], [table.weight], [picked]).forward() == (20, 160)  # rows read and written, not the table
    assert Layer(nn.Sequential(), [x], [], [x], counted=False).forward() == Work()


def test_the_roof_is_the_higher_of_both_times():
    roof = Roof(flops=100.0, bandwidth=10.0)
    assert roof.seconds(Work(200, 10)) == 2.0 and roof.seconds(Work(100, 30)) == 3.0


def test_the_devices_roof_is_measured(monkeypatch):
    monkeypatch.setattr("runtime.roofline.SIDES", {"cpu": 64})
    monkeypatch.setattr("runtime.roofline.NUMBERS", {"cpu": 2**16})
    roof = measured(mx.float32, tries=3)
    assert 1e6 < roof.flops < 1e13 and 1e6 < roof.bandwidth < 1e13


def test_the_fastest_of_some_calls_counts_but_not_the_first(monkeypatch):
    moments = iter([0.0, 0.1, 1.0, 1.6, 2.0, 2.4, 3.0, 3.7])
    monkeypatch.setattr("runtime.roofline.time.perf_counter", lambda: next(moments))
    calls = []
    assert best(lambda: calls.append(1) or mx.array(1.0), tries=9, enough=1.0) == pytest.approx(0.4)
    assert len(calls) == 3  # .1, .6 and .4 seconds are enough
