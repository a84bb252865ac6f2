"""Circuits of one spectrum: same impedance for every shunt, there and back, and the volume by differences."""

import numpy as np

from domains.eis import GRID, SWAP, default_frequencies, impedance
from domains.eis_shunt import log_volume, open_shunt, with_shunt

FREQUENCIES = default_frequencies(20)


def circuits(count: int) -> np.ndarray:
    place = np.random.default_rng(0).random((count, 5))
    return GRID[:, 0] * (GRID[:, -1] / GRID[:, 0]) ** place


def test_every_shunt_above_the_resistance_gives_the_same_spectrum():
    p = circuits(200)
    membranes = open_shunt(p)
    assert (membranes > 0).all()
    z = impedance(p, FREQUENCIES, "parallel")
    no_shunt = np.concatenate([np.zeros((200, 1)), membranes], axis=1)
    np.testing.assert_allclose(impedance(no_shunt, FREQUENCIES, "series"), z, rtol=1e-7)
    for factor in (1.2, 3.0, 1e4):
        other = with_shunt(membranes, factor * membranes[:, :2].sum(axis=1))
        np.testing.assert_allclose(impedance(other, FREQUENCIES, "parallel"), z, rtol=1e-6)
    assert np.isnan(with_shunt(membranes, 0.99 * membranes[:, :2].sum(axis=1))).all()


def test_there_and_back_and_the_swapped_circuit_is_the_same():
    p = circuits(200)
    membranes = open_shunt(p)
    back = with_shunt(membranes, p[:, 0])
    both = np.stack([p, p[:, SWAP]])
    assert (np.abs(np.log(back / both)).max(axis=-1).min(axis=0) < 1e-5).all()
    assert (back[:, 1] * back[:, 3] <= back[:, 2] * back[:, 4]).all()
    np.testing.assert_array_equal(open_shunt(p[:, SWAP]), membranes)


def test_volume_by_differences():
    p = circuits(50)
    membranes, h = open_shunt(p), 1e-5
    columns = []
    for i in range(4):
        step = np.exp(h * (np.arange(4) == i))
        up, down = (with_shunt(m, p[:, 0]) for m in (membranes * step, membranes / step))
        columns.append(np.log(up / down)[:, 1:] / (2 * h))
    want = np.log(np.abs(np.linalg.det(np.stack(columns, axis=-1))))
    found = log_volume(membranes, with_shunt(membranes, p[:, 0]))
    np.testing.assert_allclose(found, want, atol=1e-3)
