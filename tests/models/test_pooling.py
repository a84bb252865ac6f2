"""Max pooling with every derivative against windows taken one by one in NumPy, and bilinear doubling."""

import mlx.core as mx
import numpy as np
import pytest

from models.pooling import double_bilinear, max_pool

SIZES = pytest.mark.parametrize(
    "size, shape", [(2, (2, 4, 6, 3)), (2, (2, 5, 7, 3)), (3, (1, 7, 6, 2)), (1, (1, 2, 2, 2))]
)


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def chosen(x, size):
    """The values of each window's first largest entry, and a map from arrays like x to their values there."""
    x = np.array(x)
    count, rows, columns, channels = x.shape[0], x.shape[1] // size, x.shape[2] // size, x.shape[3]
    at = {}
    for b, r, c, k in np.ndindex(count, rows, columns, channels):
        window = x[b, size * r : size * (r + 1), size * c : size * (c + 1), k]
        i, j = divmod(int(window.argmax()), size)  # the first of equals
        at[b, r, c, k] = (b, size * r + i, size * c + j, k)

    def pick(array):
        array = np.array(array)
        return np.array([array[place] for place in at.values()]).reshape(count, rows, columns, channels)

    def put(array):
        full = np.zeros(x.shape, np.float32)
        for place, value in zip(at.values(), np.array(array).flatten(), strict=True):
            full[place] = value
        return full

    return pick, put


@SIZES
@pytest.mark.parametrize("compiled", [False, True])
def test_values_gradients_and_tangents(size, shape, compiled):
    wrap = mx.compile if compiled else lambda function: function
    x, dx = normal(*shape), normal(*shape, seed=1)
    pick, put = chosen(x, size)
    y = wrap(lambda x: max_pool(x, size))(x)
    assert np.array_equal(y, pick(x))
    g = normal(*y.shape, seed=2)
    gradient = wrap(lambda x, g: mx.vjp(lambda x: max_pool(x, size), [x], [g])[1][0])(x, g)
    assert np.array_equal(gradient, put(g))
    out, tangent = wrap(lambda x, dx: mx.jvp(lambda x: max_pool(x, size), [x], [dx]))(x, dx)
    assert np.array_equal(out[0], y) and np.allclose(tangent[0], pick(dx), atol=1e-6)


def test_the_first_of_equals_has_the_whole_gradient():
    x = mx.array([[3.0, 3, 0, 1], [3, 3, 1, 1]]).reshape(1, 2, 4, 1)
    gradient = mx.grad(lambda x: (max_pool(x) * mx.array([5.0, 7.0]).reshape(1, 1, 2, 1)).sum())(x)
    assert gradient.reshape(2, 4).tolist() == [[5, 0, 0, 7], [0, 0, 0, 0]]
    tangent = mx.jvp(max_pool, [x], [mx.arange(8.0).reshape(x.shape)])[1][0]
    assert tangent.flatten().tolist() == [0, 3]


def test_second_derivatives():
    x, v = normal(2, 4, 4, 3), normal(2, 4, 4, 3, seed=1)
    pick, put = chosen(x, 2)
    y, moved = pick(x), pick(v)

    def cubes(x):
        return (max_pool(x) ** 3).sum()

    def slope(x):
        return mx.jvp(cubes, [x], [v])[1][0]

    found = (
        mx.grad(slope)(x),
        mx.jvp(mx.grad(cubes), [x], [v])[1][0],
        mx.grad(lambda x: (mx.grad(cubes)(x) * v).sum())(x),
    )
    for hessian in found:  # each is the second derivative of the cubes, applied to v
        assert np.allclose(hessian, put(6 * y * moved), atol=1e-5)


@pytest.mark.parametrize("axis", [0, 2, -1])
def test_vmap_equals_a_loop(axis):
    x = normal(3, 2, 4, 4, 5)
    g = normal(3, 2, 2, 2, 5, seed=1)

    def gradient(x, g):
        return mx.vjp(max_pool, [x], [g])[1][0]

    moved = mx.moveaxis(x, 0, axis)
    wanted = mx.stack([max_pool(image) for image in x])
    assert mx.array_equal(mx.vmap(max_pool, in_axes=axis)(moved), wanted).item()
    wanted = mx.stack([gradient(image, one) for image, one in zip(x, g, strict=True)])
    assert mx.array_equal(mx.vmap(gradient, in_axes=(axis, 0))(moved, g), wanted).item()


def test_half_precision_stays():
    x = normal(1, 4, 4, 2).astype(mx.bfloat16)
    assert max_pool(x).dtype == mx.grad(lambda x: max_pool(x).sum())(x).dtype == mx.bfloat16
    assert mx.jvp(max_pool, [x], [x])[1][0].dtype == mx.bfloat16


def test_doubling_keeps_linear_images_and_their_corners():
    rows, columns = np.arange(3.0)[:, None], np.arange(5.0)
    image = (2 * rows - 3 * columns + 1).astype(np.float32)
    wanted = 2 * np.linspace(0, 2, 6)[:, None] - 3 * np.linspace(0, 4, 10) + 1
    got = double_bilinear(mx.array(image).reshape(1, 3, 5, 1))
    np.testing.assert_allclose(np.array(got)[0, :, :, 0], wanted, atol=1e-5)
