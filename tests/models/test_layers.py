"""Layers: derivatives of the convolution against sums written out and finite differences; the rest by hand."""

import math
from io import StringIO

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from models.group_norm import GroupNorm
from models.layers import ClassEmbedding, Conv2d, Dropout, TimeEmbedding, Unlabelled, convolution, join_times
from runtime.errors import UsageError

CASES = [
    (1, 1, 1, 3),
    (2, 1, 1, 3),
    (1, 0, 1, 1),
    (1, 2, 1, 3),
    (1, 1, 2, 3),
    (2, 1, 2, 3),
]  # stride padding groups kernel
EVERY = pytest.mark.parametrize("stride, padding, groups, kernel", CASES)
BOTH = pytest.mark.parametrize("swap", [False, True], ids=["unfold", "convolution"])


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def arrays(groups, kernel):
    return normal(2, 6, 5, 4, seed=1), normal(6, kernel, kernel, 4 // groups, seed=2)


def reference(x, w, stride, padding, groups):
    """The convolution as a sum over the window, in float64."""
    x, w = np.array(x, np.float64), np.array(w, np.float64)
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    kernel, per = w.shape[1], w.shape[0] // groups
    height, width = ((n - kernel) // stride + 1 for n in x.shape[1:3])
    out = np.zeros((x.shape[0], height, width, w.shape[0]))
    for g in range(groups):
        mine, wide = slice(g * per, (g + 1) * per), slice(g * w.shape[3], (g + 1) * w.shape[3])
        for i in range(kernel):
            for j in range(kernel):
                window = x[:, i : i + stride * height : stride, j : j + stride * width : stride, wide]
                out[..., mine] += window @ w[mine, i, j].T
    return out


@EVERY
def test_convolution_and_its_jvp_against_sums(stride, padding, groups, kernel):
    x, w = arrays(groups, kernel)
    dx, dw = normal(*x.shape, seed=3), normal(*w.shape, seed=4)
    conv = convolution(stride, padding, groups, False)
    out, tangent = mx.jvp(conv, [x, w], [dx, dw])
    sums = [reference(a, b, stride, padding, groups) for a, b in ((x, w), (dx, w), (x, dw))]
    assert np.abs(np.array(out[0]) - sums[0]).max() < 1e-4
    assert np.abs(np.array(tangent[0]) - (sums[1] + sums[2])).max() < 1e-4
    only_x = mx.jvp(lambda a: conv(a, w), [x], [dx])[1][0]
    only_w = mx.jvp(lambda b: conv(x, b), [w], [dw])[1][0]
    assert np.abs(np.array(only_x) - sums[1]).max() < 1e-4
    assert np.abs(np.array(only_w) - sums[2]).max() < 1e-4


@BOTH
@EVERY
def test_gradient_against_the_adjoint(stride, padding, groups, kernel, swap):
    swap = swap and stride == 1 and groups == 1
    x, w = arrays(groups, kernel)
    dx, dw = normal(*x.shape, seed=3), normal(*w.shape, seed=4)
    conv = convolution(stride, padding, groups, swap)
    probe = normal(*conv(x, w).shape, seed=5)
    gx, gw = mx.grad(lambda a, b: (conv(a, b) * probe).sum(), argnums=(0, 1))(x, w)
    # <conv'(dx), probe> = <dx, gx>: the adjoint of a linear map, nothing to approximate
    for gradient, change, moved in ((gx, dx, (dx, w)), (gw, dw, (x, dw))):
        wanted = (reference(*moved, stride, padding, groups) * np.array(probe)).sum()
        assert abs((gradient * change).sum().item() - wanted) < 1e-3


def squared_tangent(conv, x, dx):
    """A scalar of w that holds a nonlinear jvp of the convolution, as MeanFlow's loss does."""
    return lambda w: mx.square(mx.jvp(lambda a: mx.tanh(conv(conv(a, w), w)), [x], [dx])[1][0]).sum()


@BOTH
def test_gradient_of_the_jvp(swap):
    x, dx, w = normal(2, 4, 4, 3, seed=1), normal(2, 4, 4, 3, seed=3), 0.2 * normal(3, 3, 3, 3, seed=2)
    found = mx.grad(squared_tangent(convolution(1, 1, 1, swap), x, dx))(w)

    def by_hand(w):  # the same tangent by the chain rule, on MLX's plain convolution
        inner = mx.conv2d(x, w, padding=1)
        outer = mx.conv2d(inner, w, padding=1)
        moved = mx.conv2d(mx.conv2d(dx, w, padding=1), w, padding=1)
        return mx.square((1 - mx.square(mx.tanh(outer))) * moved).sum()

    wanted = mx.grad(by_hand)(w)
    assert mx.abs(found - wanted).max().item() < 1e-4 * mx.abs(wanted).max().item()
    direction, step = normal(*w.shape, seed=7), 1e-2
    value = squared_tangent(convolution(1, 1, 1, swap), x, dx)
    near = [value(w + k * step * direction).item() for k in (-2, -1, 1, 2)]
    difference = (near[0] - 8 * near[1] + 8 * near[2] - near[3]) / (12 * step)
    assert abs((found * direction).sum().item() / difference - 1) < 2e-3


@BOTH
def test_compiled_checkpointed_and_vmapped_equal_eager(swap):
    x, dx, w = normal(2, 4, 4, 3, seed=1), normal(2, 4, 4, 3, seed=3), 0.2 * normal(3, 3, 3, 3, seed=2)
    conv = convolution(1, 1, 1, swap)
    eager = mx.grad(squared_tangent(conv, x, dx))(w)
    assert mx.allclose(mx.compile(mx.grad(squared_tangent(conv, x, dx)))(w), eager, rtol=1e-4, atol=1e-4).item()

    def loss(w):
        return mx.square(mx.tanh(conv(x, w))).sum()

    kept = mx.grad(lambda w: mx.checkpoint(loss)(w))(w)
    assert mx.allclose(kept, mx.grad(loss)(w), rtol=1e-5, atol=1e-5).item()
    stacked = mx.vmap(lambda one: conv(one[None], w)[0])(x)
    assert mx.allclose(stacked, conv(x, w), atol=1e-5).item()


def convolutions(*arrays):
    """How many convolutions the graph of these arrays holds."""
    graph = StringIO()
    mx.export_to_dot(graph, *arrays)
    return graph.getvalue().count('"Convolution"')


def test_value_and_jvp_cost_two_convolutions():
    layer, x = Conv2d(4, 4), normal(2, 6, 6, 4)
    mx.eval(x, layer.parameters())
    assert convolutions(*(v[0] for v in mx.jvp(layer, [x], [mx.ones_like(x)]))) == 2


@pytest.mark.parametrize("switch, extra", [("convolution", 1), ("unfold", 0)])
def test_the_switch_chooses_how_the_weight_gradient_is_made(switch, extra, monkeypatch):
    monkeypatch.setattr(Conv2d, "weight_gradient", switch)
    layer, x, shapes = Conv2d(4, 4), normal(2, 6, 6, 4), []
    mx.eval(x, layer.parameters())
    plain = mx.conv2d

    def spy(a, w, **options):
        shapes.append(tuple(a.shape))
        return plain(a, w, **options)

    monkeypatch.setattr(mx, "conv2d", spy)
    gradient = nn.value_and_grad(layer, lambda: mx.square(layer(x)).sum())()[1]["weight"]
    assert shapes.count((4, 6, 6, 2)) == extra  # channels and batch swapped
    monkeypatch.undo()
    wanted = mx.grad(lambda w: mx.square(mx.conv2d(x, w, padding=1) + layer.bias).sum())(layer.weight)
    assert mx.allclose(gradient, wanted, rtol=1e-4, atol=1e-3).item()


@pytest.mark.parametrize("stride, groups, kernel", [(1, 1, 3), (2, 1, 3), (1, 2, 1)])
def test_conv2d_equals_mlx(stride, groups, kernel):
    ours = Conv2d(4, 8, kernel=kernel, stride=stride, groups=groups)
    theirs = nn.Conv2d(4, 8, kernel, stride=stride, padding=kernel // 2, groups=groups)
    theirs.update({"weight": ours.weight, "bias": mx.arange(8).astype(mx.float32)})
    ours.bias = theirs.bias
    x = normal(2, 6, 6, 4)
    assert mx.array_equal(ours(x), theirs(x)).item()
    assert (Conv2d(4, 8, zero=True)(x) == 0).all().item()
    assert 0.7 < mx.abs(ours.weight).max().item() * math.sqrt(4 // groups * kernel**2) <= 1


def test_join_times():
    x, times = normal(3, 2), mx.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    assert np.allclose(np.array(join_times(x, times)), np.concatenate([x, times], axis=1))
    image = join_times(normal(3, 4, 5, 2).astype(mx.bfloat16), times)
    assert image.shape == (3, 4, 5, 4) and image.dtype == mx.bfloat16
    assert np.allclose(np.array(image[..., 3].astype(mx.float32)), np.array([0.2, 0.4, 0.6])[:, None, None], atol=2e-3)
    for wrong in (None, mx.zeros((3,)), mx.zeros((2, 2))):
        with pytest.raises(UsageError, match=r"\(3, 2\)"):
            join_times(x, wrong)


def test_dropout_follows_its_key():
    layer, x = Dropout(0.3), mx.ones((100, 100))
    once, again, other = (np.array(layer(x, mx.random.key(i))) for i in (0, 0, 1))
    assert (once == again).all() and (once != other).any()
    assert set(np.unique(once)) == {0.0, np.float32(1 / 0.7)}
    assert abs((once == 0).mean() - 0.3) < 0.02
    assert mx.array_equal(layer(x), x).item() and mx.array_equal(layer.eval()(x, mx.random.key(0)), x).item()
    tangent = mx.jvp(lambda y: Dropout(0.3)(y, mx.random.key(0)), [x], [2 * x])[1][0]
    assert np.allclose(np.array(tangent), 2 * once)
    with pytest.raises(UsageError, match="got 1.0"):
        Dropout(1.0)


@pytest.mark.parametrize("channels, groups", [(8, 2), (8, 8), (64, None), (20, None)])
def test_group_norm_against_numpy(channels, groups):
    layer = GroupNorm(channels, groups)
    layer.weight, layer.bias = normal(channels, seed=8), normal(channels, seed=9)
    x = 3 + 2 * normal(2, 3, 4, channels)
    flat = np.array(x, np.float64).reshape(2, 12, layer.groups, -1)
    wanted = (flat - flat.mean((1, 3), keepdims=True)) / np.sqrt(flat.var((1, 3), keepdims=True) + 1e-6)
    wanted = wanted.reshape(x.shape) * np.array(layer.weight) + np.array(layer.bias)
    assert np.abs(np.array(layer(x)) - wanted).max() < 1e-4
    assert layer(x.astype(mx.bfloat16)).dtype == mx.bfloat16
    theirs = nn.GroupNorm(layer.groups, channels, eps=1e-6, pytorch_compatible=True)
    theirs.update({"weight": layer.weight, "bias": layer.bias})
    assert mx.abs(layer(x) - theirs(x)).max().item() < 1e-4


def test_time_embedding_sees_the_time_of_the_state_and_the_length():
    layer = TimeEmbedding(8, 16)
    seen = []
    layer.first = lambda features: seen.append(np.array(features)) or features @ mx.zeros((16, 16))
    layer.first.weight = mx.zeros(1)
    layer(mx.array([[0.2, 0.7]]))
    waves = 10_000.0 ** -(np.arange(4) / 4)
    wanted = np.concatenate([f(value * waves) for value in (0.2, 0.5) for f in (np.cos, np.sin)])
    assert np.allclose(seen[0][0], wanted, atol=1e-6)
    with pytest.raises(UsageError, match="even"):
        TimeEmbedding(7, 16)


def test_class_embedding_has_one_vector_more_for_no_class():
    layer, h = ClassEmbedding(3, 4), mx.zeros((2, 5, 4))
    found = layer(h, mx.array([1, -1]))
    assert mx.array_equal(found[0, 2], layer.weight[1]).item() and mx.array_equal(found[1, 0], layer.weight[3]).item()
    assert mx.array_equal(layer(h, None)[0, 0], layer.weight[3]).item()
    with pytest.raises(UsageError, match=r"\(2,\)"):
        layer(h, mx.array([1]))
    with pytest.raises(UsageError, match="classes=0"):
        Unlabelled()(h, mx.array([1, 2]))
