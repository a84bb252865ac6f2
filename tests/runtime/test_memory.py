"""Memory of MLX and the process, by arrays of known size."""

import mmap

import mlx.core as mx
import pytest

from runtime import memory
from runtime.memory import memory_usage, rss

MIB = 2**20


@pytest.mark.usefixtures("still_memory")
def test_an_array_counts_once_it_is_evaluated():
    mx.clear_cache()
    mx.reset_peak_memory()
    before = memory_usage()
    lazy = mx.zeros((16 * MIB,), mx.bfloat16) + 1
    assert memory_usage()["active"] - before["active"] < MIB
    mx.eval(lazy)
    there = memory_usage()
    assert 32 * MIB <= there["active"] - before["active"] < 33 * MIB and there["peak"] >= there["active"]
    del lazy
    after = memory_usage()
    assert after["active"] - before["active"] < MIB and after["peak"] == there["peak"]
    assert set(after) == {"active", "peak", "cache", "rss"} and all(isinstance(value, int) for value in after.values())


def test_resident_memory_grows_by_what_is_touched():
    before = rss()
    with mmap.mmap(-1, 256 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:  # no allocator has it already
        assert rss() - before < 128 * MIB
        for start in range(0, len(held), mmap.PAGESIZE):
            held[start] = 1
        assert 250 * MIB < rss() - before < 640 * MIB


def test_without_proc_the_system_is_asked(monkeypatch, tmp_path):
    known = rss()
    monkeypatch.setattr(memory, "Path", lambda name: tmp_path / "none")
    assert abs(rss() - known) < 200 * MIB and rss() > 10 * MIB
