"""Convolutions and their transposes: every derivative against sums written out in float64 and finite differences."""

import math
from io import StringIO

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from models import convolution, convolution_products
from models.convolution import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from models.convolution_forms import Geometry, correlate, overlap, spread
from runtime.errors import UsageError

CASES = {  # extent, kernel, then the geometry: stride, padding, dilation, groups, swap, products
    "2d": ((6, 5), (3, 3), ((1, 1), (1, 1), (1, 1), 1)),
    "2d swap": ((6, 5), (3, 3), ((1, 1), (1, 1), (1, 1), 1, True)),
    "2d swap, 1x1": ((6, 5), (1, 1), ((1, 1), (0, 0), (1, 1), 1, True)),
    "2d swap, wide padding": ((6, 5), (3, 2), ((1, 1), (2, 2), (1, 1), 1, True)),
    "2d stride": ((6, 5), (3, 3), ((2, 2), (1, 1), (1, 1), 1)),
    "2d stride, even kernel": ((6, 7), (4, 2), ((2, 3), (1, 0), (1, 1), 1)),
    "2d groups": ((6, 5), (3, 3), ((2, 1), (1, 1), (1, 1), 2)),
    "2d dilation": ((7, 6), (3, 2), ((1, 2), (2, 0), (2, 3), 1)),
    "2d products": ((6, 5), (3, 3), ((1, 1), (1, 1), (1, 1), 1, True, True)),
    "2d products by offsets": ((6, 5), (3, 2), ((1, 1), (0, 1), (1, 1), 1, True, True)),
    "2d products, wide padding": ((6, 5), (3, 2), ((1, 1), (2, 3), (1, 1), 1, True, True)),
    "2d products, 1x1": ((6, 5), (1, 1), ((1, 1), (0, 0), (1, 1), 1, True, True)),
    "1d products": ((9,), (4,), ((1,), (1,), (1,), 1, True, True)),
    "3d products by offsets": ((4, 3, 2), (3, 2, 2), ((1, 1, 1), (1, 0, 1), (1, 1, 1), 1, True, True)),
    "2d products by windows": ((6, 5), (3, 2), ((1, 1), (2, 1), (1, 1), 1, True, True)),
    "2d products by all windows": ((6, 5), (3, 2), ((1, 1), (2, 1), (1, 1), 1, True, True)),
    "2d products by windows, 1x1": ((6, 5), (1, 1), ((1, 1), (0, 0), (1, 1), 1, True, True)),
    "2d products by windows, 1x1, stride": ((6, 5), (1, 1), ((2, 2), (0, 1), (1, 1), 1, False, True)),
    "2d products by windows, strides": ((6, 7), (4, 2), ((2, 3), (1, 0), (1, 1), 1, False, True)),
    "2d products by all windows, strides": ((6, 7), (4, 2), ((2, 3), (1, 0), (1, 1), 1, False, True)),
    "1d products by windows": ((9,), (4,), ((2,), (1,), (1,), 1, False, True)),
    "3d products by windows": ((4, 3, 2), (3, 2, 2), ((1, 1, 1), (1, 0, 1), (1, 1, 1), 1, True, True)),
    "2d products, stride": ((6, 5), (3, 3), ((2, 2), (1, 1), (1, 1), 1, False, True)),
    "2d products, strides and even kernels": ((6, 7), (4, 2), ((2, 3), (1, 0), (1, 1), 1, False, True)),
    "2d products, wide padding and stride": ((6, 5), (3, 2), ((3, 2), (4, 3), (1, 1), 1, False, True)),
    "2d products, a stride beyond the window": ((6, 7), (2, 1), ((3, 2), (1, 0), (1, 1), 1, False, True)),
    "1d products, stride": ((9,), (4,), ((2,), (1,), (1,), 1, False, True)),
    "3d products, stride": ((4, 3, 5), (3, 2, 2), ((1, 2, 2), (1, 0, 1), (1, 1, 1), 1, False, True)),
    "1d groups": ((9,), (3,), ((2,), (1,), (1,), 2)),
    "1d swap": ((9,), (4,), ((1,), (1,), (1,), 1, True)),
    "3d": ((4, 2, 3), (3, 2, 2), ((1, 1, 2), (1, 0, 1), (1, 1, 1), 1)),
    "3d swap": ((4, 3, 2), (3, 2, 2), ((1, 1, 1), (1, 1, 1), (1, 1, 1), 1, True)),
    "3d groups": ((4, 2, 3), (3, 2, 2), ((2, 1, 1), (1, 0, 1), (1, 1, 1), 2)),
}
EVERY = pytest.mark.parametrize("name", list(CASES))
FLAT = ["2d swap", "2d products", "2d products by offsets", "2d products by windows",
        "2d products by all windows, strides", "2d stride", "2d groups", "1d groups"]  # fmt: skip
SOME = pytest.mark.parametrize("name", [*FLAT, "3d groups"])
KINDS = pytest.mark.parametrize("kind", ["correlate", "spread", "overlap"])


@pytest.fixture(autouse=True)
def _every_way_of_products(request, monkeypatch):
    """At the small sizes here, products are taken where a case says so, and by offsets where it says that."""
    name = request.node.callspec.params.get("name", "") if hasattr(request.node, "callspec") else ""
    if "products" in name:
        gathered = "offsets" in name or "windows" in name
        monkeypatch.setattr(convolution_products, "pays", lambda *given: "windows" not in name)
        monkeypatch.setattr(convolution_products, "FEW", 0 if gathered else 10**6)
        monkeypatch.setattr(convolution_products, "MANY", 10**6 if "all windows" in name else 0)


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def offsets(x, w, geometry):
    """For each place in the window and each group: the view of x (B, ...S', C / g) that meets w (O / g, C / g)."""
    stride, padding, dilation, groups = geometry[:4]
    x = np.pad(x, ((0, 0), *((p, p) for p in padding), (0, 0)))
    out = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[1:], w.shape[1:-1], stride, dilation)]  # noqa: B905
    for place in np.ndindex(*w.shape[1:-1]):
        cut = [slice(i * d, i * d + s * n, s) for i, d, s, n in zip(place, dilation, stride, out, strict=True)]
        for g in range(groups):
            mine, into = (slice(g * n // groups, (g + 1) * n // groups) for n in (w.shape[0], x.shape[-1]))
            yield x, (slice(None), *cut, into), (mine, *place), (..., mine), (x.shape[0], *out, w.shape[0])


def convolved(x, w, geometry):
    """The convolution as a sum over the window, in float64."""
    x, w, y = np.array(x, np.float64), np.array(w, np.float64), np.empty(0)
    for padded, view, weight, out, shape in offsets(x, w, geometry):
        y = y if y.size else np.zeros(shape)
        y[out] += padded[view] @ w[weight].T
    return y


def transposed(y, w, geometry, extent):
    """Its transpose: every entry of y scatters a window, in float64."""
    y, w = np.array(y, np.float64), np.array(w, np.float64)
    sizes = (len(y), *(n + 2 * p for n, p in zip(extent, geometry[1], strict=True)), w.shape[-1] * geometry[3])
    x = np.zeros(sizes)
    for _, view, weight, out, _ in offsets(x, w, (geometry[0], (0,) * len(extent), *geometry[2:])):
        x[view] += y[out] @ w[weight]
    inside = tuple(slice(p, p + n) for n, p in zip(extent, geometry[1], strict=True))
    return x[(slice(None), *inside)]


def setup(name):
    """The three forms with their references in float64 and arrays (a, b, da, db) for each."""
    extent, kernel, numbers = CASES[name]
    geometry = Geometry(*numbers)
    x, dx = (normal(2, *extent, 4, seed=s) for s in (1, 3))
    w, dw = (0.4 * normal(6, *kernel, 4 // geometry.groups, seed=s) for s in (2, 4))
    y, dy = (normal(*convolved(x, w, geometry).shape, seed=s) for s in (5, 6))

    def weights(x, y):  # <w', overlap(x, y)> = <conv(x, w'), y> for each unit w'
        units = np.eye(w.size).reshape(w.size, *w.shape)
        return np.array([(convolved(x, u, geometry) * np.array(y, np.float64)).sum() for u in units]).reshape(w.shape)

    return {
        "correlate": (correlate(geometry), lambda a, b: convolved(a, b, geometry), (x, w, dx, dw)),
        "spread": (spread(geometry, extent), lambda a, b: transposed(a, b, geometry, extent), (y, w, dy, dw)),
        "overlap": (overlap(geometry, kernel), weights, (x, y, dx, dy)),
    }


def close(found, wanted, tolerance=2e-5):
    wanted = np.array(wanted, np.float64)
    assert tuple(found.shape) == wanted.shape
    assert np.abs(np.array(found.astype(mx.float32)) - wanted).max() < tolerance * (1 + np.abs(wanted).max())


@KINDS
@EVERY
def test_values_and_jvp_against_sums(name, kind):
    form, reference, (a, b, da, db) = setup(name)[kind]
    out, tangent = mx.jvp(form, [a, b], [da, db])
    first, second = reference(da, b), reference(a, db)
    close(out[0], reference(a, b))
    close(tangent[0], first + second)
    close(mx.jvp(lambda a: form(a, b), [a], [da])[1][0], first)
    close(mx.jvp(lambda b: form(a, b), [b], [db])[1][0], second)


@KINDS
@EVERY
def test_gradients_are_the_adjoint(name, kind):
    form, reference, (a, b, da, db) = setup(name)[kind]
    probe = normal(*form(a, b).shape, seed=7)
    gradients = mx.grad(lambda a, b: (form(a, b) * probe).sum(), argnums=(0, 1))(a, b)
    # <f(da, b), probe> = <da, gradient>: nothing is approximated
    for gradient, change, moved in zip(gradients, (da, db), (reference(da, b), reference(a, db)), strict=True):
        products = moved * np.array(probe)
        assert abs((gradient * change).sum().item() - products.sum()) < 2e-5 * np.abs(products).sum()


def nested(form, a, b, da, db):
    """Each of grad of jvp, jvp of grad and grad of grad at b, for a nonlinear scalar, with what it differentiates."""

    def gradient(b):
        return mx.grad(lambda b: mx.tanh(form(a, b)).square().sum())(b)

    def tangent(b):
        return mx.jvp(lambda a: mx.tanh(form(a, b)), [a], [da])[1][0].square().sum()

    return {
        "grad of jvp": (mx.grad(tangent)(b), tangent),
        "jvp of grad": (mx.jvp(gradient, [b], [db])[1][0], gradient),
        "grad of grad": (mx.grad(lambda b: gradient(b).square().sum())(b), lambda b: gradient(b).square().sum()),
    }


@SOME
@KINDS
def test_nested_derivatives_against_finite_differences(name, kind):
    form, _, (a, b, da, db) = setup(name)[kind]
    a, b, step = 0.3 * a, 0.3 * b, 1e-2
    for what, (found, function) in nested(form, a, b, da, db).items():
        near = [function(b + k * step * db) for k in (-2, -1, 1, 2)]
        difference = (near[0] - 8 * near[1] + 8 * near[2] - near[3]) / (12 * step)
        slope = found if what == "jvp of grad" else (found * db).sum()
        assert float(mx.abs(slope - difference).max()) < 5e-3 * float(mx.abs(difference).max()), what


@pytest.mark.parametrize("name", FLAT)
@KINDS
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, -1)], ids=str)
def test_vmap_and_its_derivatives_equal_a_loop(name, kind, axes):
    form, _, (a, b, da, db) = setup(name)[kind]
    if axes[0] is not None:
        a, da = mx.stack([a, da, a - da], axes[0]), mx.stack([da, 2 * a, a], axes[0])
    if axes[1] is not None:
        b, db = mx.stack([b, db, b - db], axes[1]), mx.stack([db, 2 * b, b], axes[1])

    def loop(function):
        """What vmap should give."""

        def member(v, axis, i):
            return v if axis is None else mx.take(v, i, axis)

        return lambda a, b: mx.stack([function(member(a, axes[0], i), member(b, axes[1], i)) for i in range(3)])

    def gradient(a, b):
        return mx.grad(lambda b: mx.sin(form(a, b)).sum())(b)

    mapped, wanted = mx.vmap(form, in_axes=axes), loop(form)
    if name != "2d stride":
        close(mx.vmap(gradient, in_axes=axes)(a, b), loop(gradient)(a, b), 1e-4)
    elif kind == "overlap":
        return
    close(mapped(a, b), wanted(a, b))
    close(mx.jvp(mapped, [a, b], [da, db])[1][0], mx.jvp(wanted, [a, b], [da, db])[1][0])
    pairs = [mx.grad(lambda a, b, f=f: mx.sin(f(a, b)).sum(), argnums=(0, 1))(a, b) for f in (mapped, wanted)]
    for one, other in zip(*pairs, strict=True):
        close(one, other, 1e-4)


def test_vmap_that_mlx_has_not_is_refused():
    form, _, (x, w, *_) = setup("2d stride")["correlate"]
    with pytest.raises(ValueError, match="AsStrided"):  # its unfolded patches
        mx.vmap(lambda x: mx.grad(lambda w: mx.sin(form(x, w)).sum())(w))(mx.stack([x, x]))
    form, _, (x, w, *_) = setup("3d")["correlate"]
    with pytest.raises(ValueError, match="groups"):
        mx.vmap(form)(mx.stack([x, x]), mx.stack([w, w]))


@pytest.mark.parametrize("kind", ["correlate", "spread"])
@pytest.mark.parametrize("name", ["2d swap", "2d products", "2d stride"])
def test_compiled_checkpointed_and_bfloat16(name, kind):
    form, _, (a, b, da, db) = setup(name)[kind]

    def gradient(b):
        return nested(form, a, b, da, db)["grad of jvp"][0]

    eager = gradient(b)
    close(mx.compile(gradient)(b), eager, 1e-4)
    kept = mx.grad(lambda b: mx.checkpoint(lambda b: mx.tanh(form(a, b)).square().sum())(b))(b)
    close(kept, mx.grad(lambda b: mx.tanh(form(a, b)).square().sum())(b))
    a, b, da, db = (v.astype(mx.bfloat16) for v in (a, b, da, db))
    low = nested(form, a, b, da, db)["grad of jvp"][0]
    assert low.dtype == form(a, b).dtype == mx.bfloat16
    assert float(mx.abs(low.astype(mx.float32) - eager).max()) < 0.05 * float(mx.abs(eager).max())


def convolutions(*arrays):
    """How many convolutions the graph of these arrays holds."""
    graph = StringIO()
    mx.export_to_dot(graph, *arrays)
    return graph.getvalue().count('"Convolution"')


@pytest.mark.parametrize("layer", [Conv2d(4, 4), ConvTranspose2d(4, 4, 2, stride=2)], ids=["plain", "transposed"])
def test_value_and_jvp_cost_two_convolutions(layer, monkeypatch):
    monkeypatch.setattr(convolution.Convolution, "weight_gradient", "convolution")
    x = normal(2, 6, 6, 4)
    mx.eval(x, layer.parameters())
    assert convolutions(*(v[0] for v in mx.jvp(layer, [x], [mx.ones_like(x)]))) == 2


@pytest.mark.parametrize("switch, extra", [("convolution", 1), ("unfold", 0)])
def test_the_switch_chooses_how_the_weight_gradient_is_made(switch, extra, monkeypatch):
    monkeypatch.setattr(convolution.Convolution, "weight_gradient", switch)
    layer, x, shapes = Conv2d(4, 4), normal(2, 6, 6, 4), []
    mx.eval(x, layer.parameters())
    plain = mx.conv_general

    def spy(a, *others, **options):
        shapes.append(tuple(a.shape))
        return plain(a, *others, **options)

    monkeypatch.setattr(mx, "conv_general", spy)
    gradient = nn.value_and_grad(layer, lambda: mx.square(layer(x)).sum())()[1]["weight"]
    assert shapes.count((4, 6, 6, 2)) == extra  # channels and batch swapped
    monkeypatch.undo()
    wanted = mx.grad(lambda w: mx.square(mx.conv2d(x, w, padding=1) + layer.bias).sum())(layer.weight)
    assert mx.allclose(gradient, wanted, rtol=1e-4, atol=1e-3).item()


@pytest.mark.parametrize("ours, theirs, dims", [(Conv1d, nn.Conv1d, 1), (Conv2d, nn.Conv2d, 2), (Conv3d, nn.Conv3d, 3)])
@pytest.mark.parametrize("stride, kernel", [(1, 3), (2, 3), (1, 1)])
def test_layers_equal_mlx(ours, theirs, dims, stride, kernel, monkeypatch):
    monkeypatch.setattr(convolution.Convolution, "weight_gradient", "convolution")  # bitwise
    layer, other = ours(4, 8, kernel=kernel, stride=stride), theirs(4, 8, kernel, stride=stride, padding=kernel // 2)
    layer.bias = mx.arange(8).astype(mx.float32)
    other.update({"weight": layer.weight, "bias": layer.bias})
    x = normal(2, *(6,) * dims, 4)
    assert mx.array_equal(layer(x), other(x)).item()
    assert (ours(4, 8, zero=True)(x) == 0).all().item()
    assert 0.7 < float(mx.abs(layer.weight).max()) * math.sqrt(4 * kernel**dims) <= 1
    other = theirs(4, 8, 3, padding=2, dilation=2, bias=False)
    layer = ours(4, 8, dilation=2, bias=False)  # keeps the size
    layer.weight = other.weight
    assert mx.array_equal(layer(x), other(x)).item() and layer(x).shape == (*x.shape[:-1], 8)


@pytest.mark.parametrize("kind, dims", [(ConvTranspose1d, 1), (ConvTranspose2d, 2), (ConvTranspose3d, 3)])
@pytest.mark.parametrize("stride, padding, groups, extra", [(1, 0, 1, 0), (2, 1, 1, 1), (2, 0, 2, 0), (3, 1, 2, 2)])
def test_transposed_layers_against_scattering(kind, dims, stride, padding, groups, extra):
    layer = kind(4, 6, 3, stride=stride, padding=padding, groups=groups, output_padding=extra)
    layer.bias = mx.arange(6).astype(mx.float32)
    x = normal(2, *(3,) * dims, 4)
    extent = (2 * stride - 2 * padding + 3 + extra,) * dims
    geometry = ((stride,) * dims, (padding,) * dims, (1,) * dims, groups)
    assert layer.weight.shape == (4, *(3,) * dims, 6 // groups)
    close(layer(x), transposed(x, layer.weight, geometry, extent) + np.arange(6))
    if groups == 1:
        theirs = getattr(mx, f"conv_transpose{dims}d")
        weight = mx.swapaxes(layer.weight, 0, -1)
        close(layer(x) - layer.bias, theirs(x, weight, stride=stride, padding=padding, output_padding=extra))


@pytest.mark.parametrize(
    "make, said",
    [(lambda: Conv2d(4, 6, groups=4), "got 4"), (lambda: Conv2d(4, 6, kernel=(3, 3, 3)), r"2 of them.*\(3, 3, 3\)"),
     (lambda: Conv1d(4, 6, stride=0), "at least 1; got 0"), (lambda: Conv3d(4, 6)(mx.zeros((2, 4, 4, 4))), "5 axes"),
     (lambda: Conv2d(4, 6)(mx.zeros((2, 4, 4, 3))), r"size 4.*\(2, 4, 4, 3\)"),
     (lambda: ConvTranspose2d(4, 6, stride=2, output_padding=2), r"less than stride=\(2, 2\), got 2")],
)  # fmt: skip
def test_bad_numbers_are_refused(make, said):
    with pytest.raises(UsageError, match=said):
        make()
