"""Clocks that wait for the device: MLX is lazy, an unsynchronised clock measures how fast work is queued."""

import inspect
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from runtime.columns import columns
from runtime.device import synchronize
from runtime.errors import UsageError


class Block:
    """A timed block; what it is given to `wait` for is evaluated before the clock stops."""

    def __init__(self):
        self.outputs: list[Any] = []
        self.seconds = 0.0

    def wait(self, *outputs: Any) -> None:
        """Names arrays (or nests of arrays, modules, dataclasses) that the block has computed."""
        self.outputs.extend(outputs)


class Timer:
    """Seconds and calls by name, in the order of the first calls; blocks nest as "outer/inner".

    What a block computes but does not `wait` for is not its own: MLX computes it when somebody needs it.

    >>> with timer("step") as block:
    ...     block.wait(step(batch, key))
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._clock, self._open = clock, []

    @contextmanager
    def __call__(self, name: str) -> Iterator[Block]:
        """Times a block under `name` below the blocks that are open; UsageError inside of mx.compile and mx.vmap."""
        _synchronized(name)  # work queued before the block is not the block's
        self._open.append(name)
        path, block, start = "/".join(self._open), Block(), self._clock()
        self.seconds.setdefault(path, 0.0)
        self.calls.setdefault(path, 0)
        try:
            yield block
            _synchronized(name, *block.outputs)
        finally:
            self._open.pop()
            block.seconds = self._clock() - start
            self.seconds[path] += block.seconds
            self.calls[path] += 1

    def of(self, name: str) -> tuple[int, float]:
        """Calls and seconds of all blocks of a name; the time of one inside of its like counts once."""
        own = [path for path in self.seconds if path.split("/")[-1] == name]
        outermost = [path for path in own if name not in path.split("/")[:-1]]
        return sum(self.calls[path] for path in own), sum(self.seconds[path] for path in outermost)

    def report(self) -> str:
        """A tree of times: name, calls, seconds in total, milliseconds a call, the part of the block around it.

        What a block spends outside of those inside it stands below them as "(rest)".
        """
        rows: list[tuple[str, ...]] = [("block", "calls", "total s", "mean ms", "part")]
        for path in self.seconds:
            if "/" not in path:
                rows += self._rows(path, None)
        return "\n".join(columns(rows))

    def _rows(self, path: str, around: float | None) -> Iterator[tuple[str, ...]]:
        total, calls, depth = self.seconds[path], self.calls[path], path.count("/")
        part = "" if around is None else f"{total / around if around else 0:.1%}"
        mean = f"{1e3 * total / calls:.3f}" if calls else ""  # an open block has no call yet
        yield "  " * depth + path.split("/")[-1], str(calls), f"{total:.3f}", mean, part
        inner = [other for other in self.seconds if other.rpartition("/")[0] == path]
        for other in inner:
            yield from self._rows(other, total)
        if inner:
            rest = total - sum(self.seconds[other] for other in inner)
            yield "  " * (depth + 1) + "(rest)", "", f"{rest:.3f}", "", f"{rest / total if total else 0:.1%}"


def _synchronized(name: str, *outputs: Any) -> None:
    try:
        synchronize(*outputs)
    except ValueError as error:  # MLX: eval inside of compile or vmap
        raise UsageError(
            f"{name!r} can't be timed inside of mx.compile or mx.vmap, where nothing is computed yet; needed: a timer "
            "around the compiled function."
        ) from error


PROFILED = Timer()


def profile(function: Callable | None = None, *, name: str | None = None, timer: Timer = PROFILED) -> Any:
    """Decorates a function, with or without parentheses: every call is a block of `timer`, waited for.

    A name holds no "/"; without one it is the function's. Profiled functions that call each other nest in the report.
    `function.profile()` gives calls, total and mean seconds. UsageError for generators and coroutines: their calls end
    before their work does.
    """
    if function is None:
        return lambda found: profile(found, name=name, timer=timer)
    kinds = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    if any(kind(function) for kind in kinds):
        raise UsageError(f"{function.__qualname__} is a generator or a coroutine: time the loop over it with a Timer.")
    label = (name or function.__qualname__.replace("<locals>.", "")).replace("/", "|")

    @wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        with timer(label) as block:
            out = function(*args, **kwargs)
            block.wait(out)
        return out

    def told() -> dict[str, float]:
        calls, total = timer.of(label)
        return {"calls": calls, "total": total, "mean": total / calls if calls else 0.0}

    timed.profile = told  # type: ignore[attr-defined]
    return timed


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
