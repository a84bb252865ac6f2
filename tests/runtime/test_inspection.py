"""What arrays hold, beside NumPy in float64."""

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from runtime.inspection import array_stats, check_nan_inf, debug_gradient, gradient_norms, print_array_stats
from runtime.trees import flatten
from tests.runtime.nets import PATHS, Nest

NAN = float("nan")


@pytest.mark.parametrize("bad", [NAN, float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_the_first_bad_leaf_in_order(bad, dtype):
    leaf = mx.array([0.0, bad, 1.0], dtype) * 1  # not evaluated
    tree = {"a": mx.ones((3,)), "n": mx.array([1, 2]), "b": [mx.ones(2), leaf], "c": mx.array(bad)}
    found = check_nan_inf(tree)
    assert found is not None and found.path == "b.1"
    assert (found.nan, found.infinite, found.size) == (int(math.isnan(bad)), int(math.isinf(bad)), 3)
    assert str(found) == f"b.1 has {found.nan} NaN and {found.infinite} infinite of 3 numbers"
    alone = check_nan_inf(leaf, "loss")
    assert alone is not None and alone.path == "loss"


def test_empty_trees_integers_and_finite_numbers_are_fine():
    for fine in ({}, [], None, nn.ReLU(), {"a": [{}]}, mx.array([1, 2]), mx.array([True]), mx.zeros((0,)), Nest(),
                 {"a": mx.array([3.3e38]) * 1, "b": mx.array([65504], mx.float16), "c": np.ones(3)}):  # fmt: skip
        assert check_nan_inf(fine) is None


def test_numpy_and_complex_leaves():
    assert check_nan_inf({"x": np.array([1.0, NAN])}).path == "x"  # type: ignore[union-attr]
    assert check_nan_inf({"x": mx.array([complex(1, NAN)])}).nan == 1  # type: ignore[union-attr]


def test_modules_and_gradients():
    model = Nest()
    model.rows[0].layers[2].layers[0].bias = mx.array([1.0, 0, NAN, 0])
    assert check_nan_inf(model).path == "rows.0.layers.2.layers.0.bias"  # type: ignore[union-attr]
    model = Nest()
    gradients = nn.value_and_grad(model, lambda x: mx.sqrt(model(x) * 0).sum())(mx.ones((1, 4)))[1]
    found = check_nan_inf(gradients, "gradient")
    assert found is not None and found.path.startswith("gradient.") and found.path[9:] in PATHS


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16, mx.int32, mx.uint8, mx.int64, mx.bool_])
def test_statistics_equal_numpys(dtype):
    rng = np.random.default_rng(0)
    array = mx.array(rng.integers(0, 3, (50, 40))).astype(dtype) * 1
    known = np.array(array.astype(mx.float32), np.float64)
    (one,) = array_stats([array])
    assert (one.path, one.shape, one.dtype) == ("0", (50, 40), str(array.dtype).removeprefix("mlx.core."))
    assert (one.lowest, one.highest, one.nan, one.infinite) == (known.min(), known.max(), 0, 0)
    assert one.mean == pytest.approx(known.mean(), rel=1e-5) and one.std == pytest.approx(known.std(), rel=1e-5)
    assert one.zero == (known == 0).mean()


def test_statistics_of_long_bf16_sums_of_huge_numbers_and_of_large_integers():
    (one,) = array_stats(mx.full((100_000,), 1.0, mx.bfloat16))
    assert one.mean == 1.0 and one.std == 0.0  # a bf16 sum of ones ends at 256
    (one,) = array_stats(mx.array([3e38, 3e38, 1e38]))
    assert one.mean == pytest.approx(7e38 / 3) and one.std == pytest.approx(np.std([3e38, 3e38, 1e38]), rel=1e-5)
    (one,) = array_stats(mx.array([2**40 + 1, 0]))
    assert one.highest == 2**40 + 1


def test_statistics_leave_out_what_is_not_finite():
    (one,) = array_stats({"x": mx.array([NAN, 1.0, float("inf"), -3.0, 0.0, 0.0])})
    assert (one.lowest, one.highest, one.nan, one.infinite) == (-3.0, 1.0, 1, 1)
    assert one.mean == pytest.approx(-0.5)
    assert one.zero == pytest.approx(2 / 6) and one.std == pytest.approx(np.std([1, -3, 0, 0]))
    (one,) = array_stats(mx.array([NAN]))
    assert math.isnan(one.mean) and math.isnan(one.lowest) and one.nan == 1
    (one,) = array_stats(mx.array([3 + 4j]))
    assert one.highest == 5.0
    (one,) = array_stats(mx.zeros((0, 3)))
    assert one.shape == (0, 3) and math.isnan(one.mean) and one.zero == 0


def test_printed_statistics(capsys):
    print_array_stats(Nest())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["array", *flatten(Nest())]
    assert any("bfloat16" in line for line in lines)
    print_array_stats({})
    assert capsys.readouterr().out == "no arrays\n"


def test_gradients_told_apart():
    tree = {
        "zero": mx.zeros((4,)), "vanishing": [mx.full((4,), 4e-9)], "small": mx.full((4,), 6e-9),
        "large": mx.full((4,), 499.0), "exploding": {"x": mx.full((4,), 510.0, mx.bfloat16)},
        "bad": mx.array([NAN, 1.0]), "worse": mx.array([float("inf")], mx.float16), "none": None,
    }  # fmt: skip
    found = {one.path: one for one in gradient_norms(tree)}
    assert {path: one.verdict for path, one in found.items()} == {
        "zero": "zero", "vanishing.0": "vanishing", "small": "ok", "large": "ok", "exploding.x": "exploding",
        "bad": "not finite", "worse": "not finite",
    }  # fmt: skip
    assert found["small"].norm == pytest.approx(1.2e-8) and found["large"].largest == 499.0
    assert gradient_norms({"x": mx.array([2.0])}, exploding=1.0)[0].verdict == "exploding"


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1.0, 1e22, 1e37])
def test_norms_neither_underflow_nor_overflow(size):
    (one,) = gradient_norms([mx.array([3.0, 4.0]) * size])
    assert one.norm == pytest.approx(5 * size, rel=1e-5)
    assert one.verdict == ("vanishing" if size < 1e-9 else "exploding" if size > 1e3 else "ok")


def test_fp16_squares_do_not_overflow():
    (one,) = gradient_norms([mx.full((4,), 300.0, mx.float16)])
    assert one.norm == 600.0 and one.verdict == "ok"


def test_the_printed_gradients_of_a_real_loss(capsys):
    model = Nest()
    gradients = nn.value_and_grad(model, lambda x: (model(x) ** 2).sum())(mx.ones((2, 4)))[1]
    found = debug_gradient(gradients)
    out = capsys.readouterr().out.splitlines()
    assert len(out) == len(found) + 2 == len(PATHS) - 2 + 2  # the frozen norm has no gradient
    for one in found:
        leaf = flatten(gradients)[one.path]
        assert one.norm == pytest.approx(float(np.linalg.norm(np.array(leaf.astype(mx.float32)))), rel=1e-5)
    assert debug_gradient({}) == [] and "no gradients" in capsys.readouterr().out
