"""Convolutions as matrix products: where the layers take them, and the pieces against counting and NumPy."""

from io import StringIO

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from models import convolution, convolution_products
from models.convolution import Conv1d, Conv2d, Conv3d, ConvTranspose2d
from models.convolution_products import (
    forward,
    offsets,
    overlapped,
    padded,
    pays,
    positions,
    transposed,
    windows,
)


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def close(found, wanted):
    assert float(mx.abs(found - wanted).max()) < 3e-6 * float(mx.abs(wanted).max())


@pytest.fixture
def used(monkeypatch):
    """How often MLX's convolution and each form as products is called while tracing."""
    counts = {"convolution": 0, "forward": 0, "transposed": 0, "overlapped": 0}

    def counted(name, call):
        def run(*given, **options):
            counts[name] += 1
            return call(*given, **options)

        return run

    monkeypatch.setattr(mx, "conv_general", counted("convolution", mx.conv_general))
    for name in ("forward", "transposed", "overlapped"):
        monkeypatch.setattr(f"models.convolution_forms.{name}", counted(name, getattr(convolution_products, name)))
    return counts


@pytest.mark.parametrize("kind, theirs, dims", [(Conv1d, nn.Conv1d, 1), (Conv2d, nn.Conv2d, 2), (Conv3d, nn.Conv3d, 3)])
@pytest.mark.parametrize("inputs, outputs, kernel", [(16, 8, 3), (1, 8, 3), (16, 16, 1)])
def test_layers_and_gradients_equal_mlx_on_a_cpu(kind, theirs, dims, inputs, outputs, kernel, used):
    layer = kind(inputs, outputs, kernel)
    other = theirs(inputs, outputs, kernel, padding=kernel // 2)
    other.update({"weight": layer.weight, "bias": layer.bias})
    x, probe = normal(3, *(9,) * dims, inputs), normal(3, *(9,) * dims, outputs, seed=1)
    close(layer(x), other(x))
    assert used["forward"] == 1 and used["convolution"] == (inputs == 1)  # MLX's for a single channel
    pairs = [nn.value_and_grad(m, lambda m, x: (m(x) * probe).sum())(m, x)[1]["weight"] for m in (layer, other)]
    slopes = [mx.grad(lambda x, m=m: (m(x) * probe).sum())(x) for m in (layer, other)]
    close(*pairs)
    close(*slopes)
    assert used["overlapped"] > 0 < used["transposed"]


@pytest.mark.parametrize("stride, padding, more", [(1, 1, 0), (2, 1, 1), (3, 1, 0)])
def test_transposed_layers_and_gradients_equal_mlx_on_a_cpu(stride, padding, more, used):
    layer = ConvTranspose2d(16, 4, 3, stride=stride, padding=padding, output_padding=more)
    x = normal(2, 8, 7, 16)

    def theirs(x, w):
        return mx.conv_transpose2d(x, mx.swapaxes(w, 0, -1), stride, padding, output_padding=more)

    wanted = theirs(x, layer.weight)
    close(layer(x), wanted)
    assert used["transposed"] == 1
    probe = normal(*wanted.shape, seed=1)
    slopes = mx.grad(lambda x, w: (theirs(x, w) * probe).sum(), (0, 1))(x, layer.weight)
    close(mx.grad(lambda x: (layer(x) * probe).sum())(x), slopes[0])
    close(nn.value_and_grad(layer, lambda: (layer(x) * probe).sum())()[1]["weight"], slopes[1])


@pytest.mark.parametrize("options", [{"groups": 2}, {"dilation": 2}, {"dtype": mx.bfloat16}], ids=str)
def test_groups_dilation_and_half_precision_are_left_to_mlx(options, used):
    dtype = options.pop("dtype", mx.float32)
    layer, x = Conv2d(16, 8, **options), normal(2, 8, 8, 16).astype(dtype)
    layer.weight = layer.weight.astype(dtype)
    nn.value_and_grad(layer, lambda: mx.square(layer(x)).sum())()
    mx.grad(lambda x: layer(x).sum())(x)
    assert used["forward"] == used["transposed"] == used["overlapped"] == 0 < used["convolution"]


@pytest.mark.parametrize("inputs", [3, 16])
def test_with_a_stride_and_few_channels_only_the_input_gradient_is_made_of_products(inputs, used):
    layer, other = Conv2d(inputs, 8, stride=2), nn.Conv2d(inputs, 8, 3, 2, padding=1, bias=False)
    x = normal(2, 8, 7, inputs)
    other.weight = layer.weight
    close(*(mx.grad(lambda x, m=m: mx.sin(m(x)).sum())(x) for m in (layer, other)))
    pairs = [nn.value_and_grad(m, lambda m: mx.sin(m(x)).sum())(m)[1]["weight"] for m in (layer, other)]
    close(*pairs)
    assert used["transposed"] > 0 and (used["forward"] > 0) == (used["overlapped"] > 0) == (inputs == 16)


@pytest.mark.parametrize("choice", ["convolution", "unfold"])
def test_the_switch_leaves_them_out(choice, used, monkeypatch):
    monkeypatch.setattr(convolution.Convolution, "weight_gradient", choice)
    layer, x = Conv2d(16, 8), normal(2, 8, 8, 16)
    nn.value_and_grad(layer, lambda: mx.square(layer(x)).sum())()
    assert used["forward"] == used["transposed"] == used["overlapped"] == 0 < used["convolution"]


def test_the_choice_follows_the_measured_sizes():
    def faster(size, channels, outputs, more=2):
        return pays(channels, outputs, (3, 3), (size + more,) * 2, (size + more - 2,) * 2)

    assert faster(64, 32, 32) and faster(32, 64, 64) and faster(11, 64, 32, more=4)
    assert not faster(26, 1, 32) and not faster(11, 32, 64) and not faster(8, 256, 256)
    assert pays(3, 64, (1, 1), (8, 8), (8, 8))  # one place: a product without a copy


@pytest.mark.parametrize("first", [False, True])
def test_windows_are_the_places_they_name(first):
    x, kernel, stride = np.arange(3 * 5 * 6 * 2).reshape(3, 5, 6, 2), (3, 2), (1, 2)
    wanted = [x[b, i : i + 3, j : j + 2].flatten() for b in range(3) for i in range(3) for j in range(0, 5, 2)]
    if first:  # rows of the first axis, then images
        wanted = [wanted[(b * 3 + i) * 3 + j] for i in range(3) for b in range(3) for j in range(3)]
    assert np.array_equal(windows(mx.array(x), kernel, stride, first), wanted)
    assert positions(3, (5, 6), kernel, stride, first) is positions(3, (5, 6), kernel, stride, first)


def test_offsets_count_rows_of_the_grid():
    grid = np.arange(5 * 4 * 6).reshape(5, 4, 6)
    assert offsets((3, 2, 2), grid.shape) == grid[:3, :2, :2].flatten().tolist()


@pytest.mark.parametrize(
    "before, after", [((1, 2), (0, 3)), ((-1, 2), (0, -2)), ((0, 0), (0, 0)), ((-1, -1), (-1, -1))]
)
def test_padding_adds_zeros_and_cuts(before, after):
    x = normal(2, 4, 5, 3)
    wanted = np.pad(x, [(0, 0), *((max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True)), (0, 0)])
    cut = [slice(max(-b, 0), n - max(-a, 0)) for b, a, n in zip(before, after, wanted.shape[1:], strict=False)]
    found = padded(x, before, after)
    assert np.array_equal(found, wanted[:, *cut])


@pytest.mark.parametrize("places", [True, False])
def test_results_are_contiguous_and_empty_places_do_not_leak(places, monkeypatch):
    monkeypatch.setattr(convolution_products, "pays", lambda *given: places)
    x, w = normal(2, 5, 4, 16), normal(3, 3, 3, 16, seed=1)
    y, alone = (forward(images, w, (1, 1), (1, 1)) for images in (x, x[:1]))
    # the first image does not see the second, though its last windows' rows reach into it
    assert mx.allclose(y[:1], alone, rtol=1e-5, atol=1e-5).item()
    half = mx.concatenate([y[:1], mx.zeros_like(y[1:])])
    gradients = [overlapped(*given, (3, 3), (1, 1), (1, 1)) for given in ((x, half), (x[:1], y[:1]))]
    assert mx.allclose(*gradients, rtol=1e-5, atol=1e-4).item()
    spread = transposed(y, w, (2, 2), (1, 1), (9, 7))
    assert np.asarray(y).flags.c_contiguous and np.asarray(spread).flags.c_contiguous


def test_compiled_the_value_and_the_gradient_of_the_weights_pad_once():
    layer, x = Conv2d(16, 24), normal(2, 12, 12, 16)

    def loss(x, w):
        layer.weight = w
        return mx.square(layer(x)).sum()

    graph = StringIO()
    mx.export_to_dot(graph, mx.compile(mx.value_and_grad(loss, (0, 1)))(x, layer.weight))
    assert graph.getvalue().count('"Pad"') == 2  # of x, and of what comes back for the gradient of x
