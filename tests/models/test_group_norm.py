"""Group normalisation: plain against float64, and the kernels' formulas and custom derivatives against autodiff."""

import struct

import mlx.core as mx
import numpy as np
import pytest

from models import group_norm, group_norm_cpu, group_norm_cuda
from models.group_norm import GroupNorm, expression, fused
from runtime import cuda_launch, nvrtc
from runtime.errors import UsageError
from tests.models import group_norm_formulas as formulas
from tests.models.launches import watched

SIZES = [(2, 4, 4, 16, 2), (1, 3, 5, 24, 1), (2, 2, 2, 64, 8)]  # B H W C groups


def bits(number):
    return struct.unpack("<i", struct.pack("<f", number))[0]


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def close(a, b, tolerance=1e-5):
    assert a.shape == b.shape and np.abs(np.array(a, np.float64) - np.array(b, np.float64)).max() < tolerance


def module(channels, groups):
    norm = GroupNorm(channels, groups)
    norm.weight, norm.bias = normal(channels, seed=1), normal(channels, seed=2)
    return norm


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_values_in_float64(size, silu):
    *shape, groups = size
    norm = module(shape[-1], groups)
    x, scale, shift = 3 + 2 * normal(*shape), normal(shape[0], shape[-1], seed=3), normal(shape[0], shape[-1], seed=4)
    y = np.array(x, np.float64).reshape(shape[0], -1, groups, shape[-1] // groups)
    y = (y - y.mean(axis=(1, 3), keepdims=True)) / np.sqrt(y.var(axis=(1, 3), keepdims=True) + 1e-6)
    z = y.reshape(shape) * np.array(norm.weight) + np.array(norm.bias)
    z = z * (1 + np.array(scale)[:, None, None]) + np.array(shift)[:, None, None]
    close(norm(x, silu=silu, modulation=mx.concatenate([scale, shift], axis=-1)), z / (1 + np.exp(-z)) if silu else z)


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_formulas_of_the_kernels_equal_autodiff(size, silu, monkeypatch):
    *shape, groups = size
    norm = module(shape[-1], groups)
    arguments = [2 + normal(*shape), normal(shape[0], 2 * shape[-1], seed=3)]
    tangents = [normal(*a.shape, seed=5) for a in arguments]
    weight = normal(*shape, seed=6)

    def loss(x, modulation):
        mx.disable_compile()  # MLX's compiled SiLU has no gradient of its jvp
        (y,), (dy,) = mx.jvp(lambda *a: norm(a[0], silu, a[1]), [x, modulation], tangents)
        return (weight * mx.square(y)).sum(), (y, dy)

    mx.disable_compile()
    monkeypatch.setattr(GroupNorm, "mode", "plain")
    run = mx.value_and_grad(loss, argnums=(0, 1))
    (_, (y, dy)), grads = run(*arguments)
    mx.eval(y, dy, grads)
    monkeypatch.setattr(GroupNorm, "mode", "fused")
    monkeypatch.setattr(group_norm, "KERNELS", formulas)
    (_, (y_fused, dy_fused)), fused_grads = run(*arguments)
    mx.eval(y_fused, dy_fused, fused_grads)
    mx.enable_compile()
    close(y_fused, y)
    close(dy_fused, dy, 3e-5)
    for found, wanted in zip(fused_grads, grads, strict=True):
        close(found, wanted, 2e-4)


@pytest.mark.parametrize("modulated", [False, True])
def test_gradients_of_the_weights_with_and_without_modulation(modulated, monkeypatch):
    norm, x = module(16, 2), normal(3, 4, 4, 16)
    modulation = normal(3, 32, seed=3) if modulated else None

    def loss(weights):
        norm.update(weights)
        return mx.square(norm(x, modulation=modulation)).sum()

    monkeypatch.setattr(GroupNorm, "mode", "plain")
    wanted = mx.grad(loss)(dict(norm.trainable_parameters()))
    monkeypatch.setattr(GroupNorm, "mode", "fused")
    for kernels in (formulas, group_norm_cuda):  # with the latter it is group_norm_cpu here
        monkeypatch.setattr(group_norm, "KERNELS", kernels)
        found = mx.grad(loss)(dict(norm.trainable_parameters()))
        for name in wanted:
            close(found[name], wanted[name], 2e-4)


def test_formulas_differentiate_in_one_argument_and_when_compiled():
    f = fused(formulas, 2, 1e-6, True)
    x, t = normal(2, 3, 3, 16), normal(2, 3, 3, 16, seed=3)
    given = [normal(16, seed=1), normal(16, seed=2), normal(2, 32, seed=4)]
    out, slope = mx.jvp(lambda x: f(x, *given)[0], [x], [t])
    h = 1e-2
    close(slope[0], (f(x + h * t, *given)[0] - f(x - h * t, *given)[0]) / (2 * h), 5e-3)

    def loss(x):
        return mx.square(f(x, *given)[0]).sum()

    close(mx.compile(mx.grad(loss))(x), mx.grad(loss)(x))
    assert out[0].shape == x.shape


@pytest.mark.parametrize("kernels", [formulas, group_norm_cpu], ids=["cuda", "cpu"])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("modulated", [False, True])
def test_formulas_equal_autodiff_in_float64(silu, modulated, kernels):
    rng = np.random.default_rng(0)
    shapes = [(3, 2, 5, 24), (24,), (24,), (3, 48)][: 4 if modulated else 3]
    with mx.stream(mx.cpu):
        primals, tangents = ([mx.array(rng.normal(size=s), mx.float64) for s in shapes] for _ in range(2))
        g = mx.array(rng.normal(size=shapes[0]), mx.float64)
        plain = expression(3, 1e-6, silu)
        (y,), gradients = mx.vjp(lambda *p: plain(*p)[0], primals, [g])
        found, statistics = kernels.forward(*primals, groups=3, eps=1e-6, silu=silu)
        # MLX computes a double's exponential in float32; the formulas of CUDA take its sigmoid
        tolerance = 1e-6 if silu and kernels is group_norm_cpu else 1e-12
        close(found, y, tolerance)
        by_hand = kernels.backward(*primals, statistics, g, groups=3, silu=silu)
        for mine, wanted in zip(by_hand, gradients, strict=True):
            close(mine, wanted, tolerance)
        for still in [(), (1, 2), (0,), (3,), (1,)]:
            given = [None if i in still else v for i, v in enumerate(tangents)]
            filled = [mx.zeros_like(p) if v is None else v for p, v in zip(primals, given, strict=True)]
            (slope,) = mx.jvp(lambda *p: plain(*p)[0], primals, filled)[1]
            close(kernels.tangent(primals, given, 3, 1e-6, silu), slope, tolerance)


@pytest.mark.parametrize("kernels", [formulas, group_norm_cpu], ids=["cuda", "cpu"])
def test_every_nesting_of_derivatives_equals_autodiff(kernels):
    primals = [1 + normal(2, 3, 2, 16), normal(16, seed=1), normal(16, seed=2), normal(2, 32, seed=5)]
    t, g = normal(2, 3, 2, 16, seed=3), normal(2, 3, 2, 16, seed=4)

    def found(f):
        def value(*p):
            return (g * mx.square(f(*p)[0])).sum()

        def slope(x, *rest):  # its gradient goes through the tangent
            return (g * mx.square(mx.jvp(lambda x: f(x, *rest)[0], [x], [t])[1][0])).sum()

        def length(*p):  # its gradient goes through the gradient
            return sum(mx.square(v).sum() for v in mx.grad(value, argnums=every)(*p))

        every = (0, 1, 2, 3)
        yield from mx.grad(slope, argnums=every)(*primals)
        yield from mx.grad(length, argnums=every)(*primals)
        yield mx.jvp(mx.grad(value), primals, [t, primals[2], primals[1], 2 * primals[3]])[1][0]
        yield mx.jvp(lambda x: mx.jvp(lambda x: f(x, *primals[1:])[0], [x], [t])[1][0], primals[:1], [g])[1][0]
        stacked = [mx.stack([p, 2 * p]) for p in primals]
        yield mx.vmap(lambda *p: f(*p)[0])(*stacked)
        yield mx.vmap(mx.grad(value))(*stacked)
        yield mx.vmap(lambda x: f(x, *primals[1:])[0])(stacked[0])
        yield mx.grad(lambda x: mx.square(mx.vmap(lambda x: f(x, *primals[1:])[0])(x)).sum())(stacked[0])

    for ours, wanted in zip(found(fused(kernels, 2, 1e-6, True)), found(expression(2, 1e-6, True)), strict=True):
        assert mx.abs(wanted).max().item() > 0.1  # MLX gives zeros where a rule is missing
        close(ours, wanted, 1e-4 * mx.abs(wanted).max().item())


def test_a_mode_that_is_unknown_or_impossible_is_a_sentence(monkeypatch):
    norm, x = module(12, 2), normal(1, 2, 2, 12).astype(mx.bfloat16)  # 6 channels to a group fit no kernel
    monkeypatch.setattr(GroupNorm, "mode", "fast")
    with pytest.raises(UsageError, match="auto, fused or plain, got 'fast'"):
        norm(x)
    monkeypatch.setattr(GroupNorm, "mode", "fused")
    with pytest.raises(UsageError, match="needs float32 on a CPU, or an NVIDIA GPU.*got .*12 channels in 2 groups"):
        norm(x)


def test_half_precision_keeps_statistics_in_float32():
    norm = module(16, 2)
    x = (100 + normal(2, 8, 8, 16)).astype(mx.bfloat16)
    found = norm(x)
    assert found.dtype == mx.bfloat16
    close(found.astype(mx.float32), norm(x.astype(mx.float32)), 0.05)


def test_blocks_hold_whole_groups_and_whole_warps():
    for channels in (24, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024):
        groups = GroupNorm(channels).groups
        slab = group_norm_cuda.slab_of(channels, groups)
        assert slab is not None and slab % (channels // groups) == 0 and channels % slab == 0 and slab <= 256
        threads = slab // 8 * group_norm_cuda.rows_of(slab)
        assert threads % 32 == 0 and threads <= 512
    assert group_norm_cuda.slab_of(12, 1) is None and group_norm_cuda.slab_of(264, 1) is None
    with pytest.raises(UsageError, match="divide"):
        GroupNorm(12, 5)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_own_kernels_are_given_what_their_signatures_name(dtype, monkeypatch):
    seen, sources = {}, []

    def look(name, text, scalars, *_):
        seen[name] = ([part.split(" ")[-1] for part in text.split(f"{name}(")[1].split(")")[0].split(", ")], scalars)
        sources.append(text)

    watched(monkeypatch, look)
    x, row, modulation = mx.zeros((2, 4, 4, 128), dtype), mx.zeros(128), mx.zeros((2, 256), dtype)
    y, statistics = group_norm_cuda.forward(x, row, row, groups=16, eps=1e-6, silu=True)
    own = group_norm_cuda.backward(x, row, row, modulation, statistics, x, groups=16, silu=True)
    assert [a.dtype for a in own] == [dtype, mx.float32, mx.float32, dtype] and y.dtype == dtype
    assert [a.shape for a in own] == [x.shape, (128,), (128,), (2, 256)] and statistics.shape == (2, 16, 2)
    names = {key.removeprefix("group_norm_"): value[0][:-6] for key, value in seen.items() if key != "row_sums"}
    assert names == {
        "forward": ["x", "weight", "bias", "y", "stats"],
        "backward": ["x", "g", "weight", "bias", "modulation", "stats", "dx", "part", "dmodulation"],
    }
    for name, (_, scalars) in seen.items():
        sizes = [2, 128] if name == "row_sums" else [16, 128, 8, 64, 64]
        assert scalars == [*sizes, bits(1e-6) if name.endswith("forward") else 0]
    moving = {(): [], (0, 1): ["tweight", "tbias"], (1,): ["tweight", "tbias"], (2,): ["tmodulation"]}
    for which, more in moving.items():
        along = [a if i in which else None for i, a in enumerate((row, row, modulation))]
        slope = group_norm_cuda.tangent([x, row, row, modulation], [x, *along], 16, 1e-6, True)
        assert all(sources[-1].count(name) >= 2 for name in more)  # in the signature and where it is used
        assert seen["group_norm_tangent"][0][:-6] == ["x", "t", "weight", "bias", "modulation", *more, "ty"]
        assert slope.dtype == dtype


def test_without_nvrtc_mlx_compiles_the_kernels(monkeypatch):
    seen = []

    def kernel(name, inputs, outputs, body, header=""):
        def run(inputs, template, output_shapes, output_dtypes, **_):
            seen.append(name)
            return [mx.zeros(shape, kind) for shape, kind in zip(output_shapes, output_dtypes, strict=True)]

        return run

    monkeypatch.setattr(nvrtc, "library", lambda: None)
    monkeypatch.setattr(mx.fast, "cuda_kernel", kernel)
    cuda_launch.kernel.cache_clear()
    x, row = mx.zeros((2, 4, 4, 128)), mx.zeros(128)
    group_norm_cuda.forward(x, row, row, groups=16, eps=1e-6, silu=True)
    cuda_launch.kernel.cache_clear()
    assert seen == ["group_norm_forward"]
