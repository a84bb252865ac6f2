"""Clocks that wait for the device: MLX is lazy, an unsynchronised clock measures how fast work is queued."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx


class Block:
    """A timed block; what it is given to `wait` for is evaluated before the clock stops."""

    def __init__(self):
        self.outputs: list[Any] = []
        self.seconds = 0.0

    def wait(self, *outputs: Any) -> None:
        """Names arrays (or nests of arrays) that the block has computed."""
        self.outputs.extend(outputs)


class Timer:
    """Seconds and calls by name; blocks nest as "outer/inner".

    >>> with timer("step") as block:
    ...     block.wait(step(batch, key))
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._clock, self._open = clock, []

    @contextmanager
    def __call__(self, name: str) -> Iterator[Block]:
        """Times a block under `name` below the blocks that are open."""
        mx.synchronize()  # work queued before the block is not the block's
        self._open.append(name)
        path, block, start = "/".join(self._open), Block(), self._clock()
        try:
            yield block
            mx.eval(block.outputs)  # synchronize waits only for what was scheduled
            mx.synchronize()
        finally:
            self._open.pop()
            block.seconds = self._clock() - start
            self.seconds[path] = self.seconds.get(path, 0.0) + block.seconds
            self.calls[path] = self.calls.get(path, 0) + 1

    def report(self) -> str:
        """One line a block: name, calls, seconds in total, milliseconds a call; outer blocks first."""
        width = max((len(path) for path in self.seconds), default=0)
        return "\n".join(
            f"{path:<{width}}  {self.calls[path]:>7} calls  {total:>9.3f} s  {1e3 * total / self.calls[path]:>9.3f} ms"
            for path, total in sorted(self.seconds.items())
        )


class StepClock:
    """Steps per second over the last `window` ticks; time inside `paused()` (evaluation, checkpoints) does not count.

    The caller ticks after a step's result is on the host, or at least after mx.eval of the step before it.
    """

    def __init__(self, window: int = 100, clock: Callable[[], float] = time.perf_counter):
        self._clock, self._away = clock, 0.0
        self._ticks: deque[tuple[float, int]] = deque(maxlen=window + 1)
        self._steps = 0

    def tick(self, steps: int = 1) -> None:
        """Records that `steps` more steps are done; the first tick only starts the clock."""
        if self._ticks:
            self._steps += steps
        self._ticks.append((self._clock() - self._away, self._steps))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A block whose time is left out of the rate."""
        start = self._clock()
        try:
            yield
        finally:
            self._away += self._clock() - start

    @property
    def rate(self) -> float:
        """Steps per second over the window; 0.0 until two ticks are known."""
        if len(self._ticks) < 2:
            return 0.0
        (start, before), (end, now) = self._ticks[0], self._ticks[-1]
        return (now - before) / (end - start) if end > start else 0.0
