"""Freed memory is used again: page faults of a large array's step, counted in fresh processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import heap

ROOT = Path(__file__).parents[2]
FAULTS = """
import runtime.blas, runtime.heap, resource
import mlx.core as mx
mx.set_default_device(mx.cpu)
x = mx.ones(2**24)  # 64 MB, 16,384 pages
counts = []
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    total = (x + 1).sum().item()
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(counts[-1], total == 2**25, runtime.heap.status)
"""
PAGES = 2**26 // 4096


def run(**environment):
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    count, right, status = done.stdout.split(maxsplit=2)
    assert right == "True"
    return int(count), status.strip()


@pytest.mark.skipif(heap.status == "not needed", reason="only MLX's CPU backend on Linux allocates by malloc")
def test_a_large_array_costs_no_page_faults_once_its_memory_was_used():
    count, status = run(MLX_LAB_HEAP="", MLX_LAB_BLAS="")
    assert count < PAGES / 100 and status == "freed memory is kept"


@pytest.mark.skipif(heap.status == "not needed", reason="only MLX's CPU backend on Linux allocates by malloc")
@pytest.mark.parametrize("switch", ["MLX_LAB_HEAP", "MLX_LAB_BLAS"])
def test_off_leaves_the_c_library_as_it_is(switch):
    count, status = run(**{switch: "off"})
    assert count > PAGES / 2 and status == "off"


def test_elsewhere_nothing_is_set(monkeypatch):
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda path: pytest.fail("the C library was touched"))
    monkeypatch.setattr(heap.sys, "platform", "darwin")
    assert heap.keep() == "not needed"
    monkeypatch.setattr(heap.sys, "platform", "linux")
    monkeypatch.setattr(heap.sys, "path", [])  # no wheel for CPUs
    assert heap.keep() == "not needed"


def test_a_c_library_without_the_parameters_is_told(monkeypatch):
    monkeypatch.setattr(heap, "cpu_wheel", lambda: True)
    monkeypatch.setattr(heap.sys, "platform", "linux")
    for name in ("MLX_LAB_HEAP", "MLX_LAB_BLAS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda path: object())
    assert "no such parameters" in heap.keep()
