"""The table that the kernel reads, by what its blocks would copy; the kernel itself runs where there is a GPU."""

import mlx.core as mx
import numpy as np
import pytest

from training import flat_cuda
from training.flat_cuda import CHUNK

GPU = mx.cuda.is_available()


def copied(arrays):
    """What blocks copy that read the table as the kernel does, and how often each number is written."""
    words, blocks, length = flat_cuda.table([len(a) for a in arrays])
    n = len(arrays)
    firsts, starts, sizes = words[: n + 1], words[n + 1 : 2 * n + 1], words[2 * n + 1 :]
    y, written = np.full(length, np.nan), np.zeros(length, int)
    for block in range(blocks):
        k = max(i for i in range(n) if firsts[i] <= block)
        begin = (block - firsts[k]) * CHUNK
        room = -(-sizes[k] // 64) * 64
        padded = np.pad(arrays[k], (0, room - sizes[k]))[begin : begin + CHUNK]
        at = starts[k] * 64 + begin
        y[at : at + len(padded)] = padded
        written[at : at + len(padded)] += 1
    return y, written


def by_hand(arrays):
    return np.concatenate([np.pad(a, (0, -len(a) % 64)) for a in arrays])


@pytest.mark.parametrize("sizes", [(1, 64, 65), (CHUNK, CHUNK + 1, CHUNK - 1, 3), (2 * CHUNK + 5, 0, 7), (5,)])
def test_blocks_copy_every_array_once_and_fill_with_zeros(sizes):
    arrays = [np.random.default_rng(i).normal(size=size) for i, size in enumerate(sizes)]
    y, written = copied(arrays)
    assert np.array_equal(y, by_hand(arrays)) and (written == 1).all()


def test_more_arrays_than_a_kernel_can_be_told_take_several(monkeypatch):
    monkeypatch.setattr(flat_cuda, "MOST", 3)
    monkeypatch.setattr(flat_cuda, "_join", lambda own: mx.concatenate([mx.pad(a, (0, -a.size % 64)) for a in own]))
    arrays = [np.random.default_rng(i).normal(size=i + 1).astype(np.float32) for i in range(7)]
    assert np.array_equal(np.array(flat_cuda.join([mx.array(a) for a in arrays])), by_hand(arrays))


def test_a_cpu_takes_no_kernel():
    assert GPU or not flat_cuda.takes([mx.zeros(3), mx.zeros(4)])


@pytest.mark.skipif(not GPU, reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_the_kernel_joins_whatever_an_array_begins_at(dtype):
    base = mx.random.normal((3 * CHUNK,)).astype(dtype)
    arrays = [base[: CHUNK + 9], base[1:77], base[5 : 2 * CHUNK + 2], base[:64].reshape(8, 8).T, base[3:4]]
    parts = [mx.pad(a.reshape(-1), (0, -a.size % 64)) for a in arrays]
    assert mx.array_equal(flat_cuda.join(arrays), mx.concatenate(parts)).item()
