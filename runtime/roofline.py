"""What the default device can do at most, measured: operations a second of a product, bytes a second of a copy."""

import time
from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx

from runtime.work import Work

SIDES = {"cpu": 1024, "gpu": 8192}  # of the square matrices; at these sizes more gains nothing
NUMBERS = {"cpu": 2**24, "gpu": 2**27}  # float32 in the copy, more than any cache holds


class Roof(NamedTuple):
    """Most operations (of one dtype) and bytes a second."""

    flops: float
    bandwidth: float

    def seconds(self, work: Work) -> float:
        """The least time that some work takes: the roofline (Williams et al., CACM 52(4), 2009)."""
        return max(work.flops / self.flops, work.moved / self.bandwidth)


def measured(dtype: mx.Dtype = mx.float32, tries: int = 20) -> Roof:
    """The roof of the default device, the best of `tries`, or of those of a second each."""
    kind = "gpu" if mx.default_device() == mx.Device(mx.gpu) else "cpu"
    side, count = SIDES[kind], NUMBERS[kind]
    a, b = (mx.random.normal((side, side), key=mx.random.key(i)).astype(dtype) for i in (0, 1))
    x = mx.zeros(count)
    mx.eval(a, b, x)
    return Roof(2 * side**3 / best(lambda: a @ b, tries), 2 * x.nbytes / best(lambda: x + 1, tries))


def best(function: Callable[[], mx.array], tries: int, enough: float = 1.0) -> float:
    """Seconds of the fastest of so many calls, or of fewer once `enough` seconds are over; the first does not count."""
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) <= tries and sum(seconds) < enough):
        mx.synchronize()
        began = time.perf_counter()
        mx.eval(function())
        mx.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])
