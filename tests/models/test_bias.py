"""The sum with a bias and its derivatives against sums in float64."""

import mlx.core as mx
import numpy as np

from models.bias import biased


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def close(found, wanted):
    assert found.shape == wanted.shape and np.abs(np.array(found, np.float64) - np.array(wanted)).max() < 1e-5


def test_every_derivative_with_a_gradient_that_is_a_view():
    y, b, t, s = normal(3, 4, 4, 8), normal(8, seed=1), normal(3, 4, 4, 8, seed=2), normal(8, seed=3)
    probe = normal(3, 4, 4, 16, seed=4)

    def value(y, b):  # the gradient of a concatenation is a view
        return (mx.concatenate([biased(y, b), y], axis=-1) * probe).sum()

    wanted = np.array(probe, np.float64)
    for run in (mx.grad(value, (0, 1)), mx.compile(mx.grad(value, (0, 1)))):
        dy, db = run(y, b)
        close(dy, wanted[..., :8] + wanted[..., 8:])
        close(db, wanted[..., :8].sum(axis=(0, 1, 2)))
    for tangents, moved in (((t, s), t + s), ((t, None), t), ((None, s), mx.broadcast_to(s, t.shape))):
        along = [i for i, v in enumerate(tangents) if v is not None]
        f = lambda *a, along=along: biased(*(a[along.index(i)] if i in along else (y, b)[i] for i in range(2)))  # noqa: E731
        (out,), (found,) = mx.jvp(f, [(y, b)[i] for i in along], [v for v in tangents if v is not None])
        assert mx.array_equal(out, y + b).item() and mx.array_equal(found, moved).item()
    found = mx.vmap(mx.grad(lambda b: (biased(y, b) * t).sum()))(mx.stack([b, s]))
    close(found, mx.stack([t.sum(axis=(0, 1, 2))] * 2))
