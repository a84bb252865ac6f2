"""Clocks, driven by a hand-turned clock so that nothing depends on the machine's speed."""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import pytest

from runtime.errors import UsageError
from runtime.timing import StepClock, Timer, profile


class Hand:
    """A clock that moves when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_nested_blocks_add_up_by_path():
    hand = Hand()
    timer = Timer(clock=hand)
    for _ in range(2):
        with timer("epoch"):
            hand.now += 1
            with timer("step") as block:
                hand.now += 3
    assert timer.seconds == {"epoch": 8.0, "epoch/step": 6.0}
    assert timer.calls == {"epoch": 2, "epoch/step": 2}
    assert block.seconds == 3.0
    lines = [line.split() for line in timer.report().splitlines()]
    assert lines[1:] == [
        ["epoch", "2", "8.000", "4000.000"],
        ["step", "2", "6.000", "3000.000", "75.0%"],
        ["(rest)", "2.000", "25.0%"],
    ]
    assert timer.report().splitlines()[2].startswith("  step")


@dataclass
class Output:
    x: mx.array


def waiting(monkeypatch, timer, outputs) -> list[str]:
    """What a block of the timer does, in order, when it is handed outputs."""
    order = []
    evaluate, synchronize = mx.eval, mx.synchronize
    monkeypatch.setattr(mx, "eval", lambda leaves: (order.append(f"eval {len(leaves)}"), evaluate(leaves)))
    monkeypatch.setattr(mx, "synchronize", lambda *args: (order.append("sync"), synchronize(*args)))
    monkeypatch.setattr(timer, "_clock", lambda: (order.append("clock"), 0.0)[1])
    with timer("step") as block:
        order.append("block")
        block.wait(*outputs)
    return order


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_the_block_evaluates_what_it_waits_for_before_the_clock_stops(monkeypatch, dtype):
    timer = Timer(clock=Hand())
    lazy = mx.ones(3, dtype) + 1
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))
    order = waiting(monkeypatch, timer, [{"a": [lazy, (lazy,)], "_hidden": lazy}, Output(lazy), model, 3.0, None])
    assert order == ["eval 0", "sync", "clock", "block", "eval 8", "sync", "clock"]


def test_a_block_without_outputs_waits_for_the_stream(monkeypatch):
    assert waiting(monkeypatch, Timer(clock=Hand()), [{}, [], None])[-3:] == ["eval 0", "sync", "clock"]


def test_the_time_of_lazy_work_is_the_blocks_that_waits_for_it():
    timer, x = Timer(), mx.ones((600, 600))
    with timer("lazy"):
        y = x
        for _ in range(40):
            y = y @ x / 600
    with timer("waits") as block:
        block.wait([y])
    assert timer.seconds["waits"] > 5 * timer.seconds["lazy"]


def test_a_block_inside_of_compile_is_refused():
    timer = Timer()

    def step(x):
        with timer("step") as block:
            block.wait(x * 2)
        return x

    with pytest.raises(UsageError, match="'step' can't be timed inside of mx.compile or mx.vmap"):
        mx.compile(step)(mx.ones(2))
    assert mx.grad(lambda x: step(x).sum())(mx.ones(2)).tolist() == [1, 1]
    with timer("after"):
        pass
    assert set(timer.seconds) == {"step", "step/step", "after"} or set(timer.seconds) == {"step", "after"}


def test_profiled_functions_nest_and_count():
    hand = Hand()
    timer = Timer(clock=hand)

    @profile(timer=timer, name="inner")
    def inner(x):
        hand.now += 2
        return {"y": [x * 2]}

    @profile(timer=timer)
    def outer(x):
        """Its docstring."""
        hand.now += 1
        return inner(inner(x)["y"][0])

    assert outer(mx.ones(2, mx.bfloat16))["y"][0].tolist() == [4, 4]
    assert outer.__doc__ == "Its docstring." and outer.__name__ == "outer"
    assert outer.profile() == {"calls": 1, "total": 5.0, "mean": 5.0}
    inner(mx.ones(1))
    assert inner.profile() == {"calls": 3, "total": 6.0, "mean": 2.0}
    assert "inner" in timer.report() and "80.0%" in timer.report()


def test_recursion_is_timed_once():
    hand = Hand()

    @profile(timer=Timer(clock=hand))
    def deep(n):
        hand.now += 1
        return deep(n - 1) if n else None

    assert deep.profile() == {"calls": 0, "total": 0.0, "mean": 0.0}
    deep(3)
    assert deep.profile() == {"calls": 4, "total": 4.0, "mean": 1.0}


def test_profile_waits_and_refuses_what_ends_before_its_work(monkeypatch):
    seen = []
    evaluate = mx.eval
    monkeypatch.setattr(mx, "eval", lambda leaves: (seen.append(len(leaves)), evaluate(leaves)))

    @profile
    def work(x):
        return x + 1, [x]

    work(mx.ones(2))
    assert seen == [0, 2] and work.profile()["calls"] == 1
    with pytest.raises(UsageError, match="generator or a coroutine"):

        @profile
        def batches():
            yield 1


def test_a_block_that_raises_is_closed():
    timer = Timer()
    with pytest.raises(KeyError), timer("a"):
        raise KeyError
    with timer("b"):
        pass
    assert set(timer.seconds) == {"a", "b"}


def test_rate_over_the_window_without_the_pauses():
    hand = Hand()
    clock = StepClock(window=4, clock=hand)
    assert clock.rate == 0.0
    for _ in range(10):
        clock.tick()
        hand.now += 10.0  # slow beginning, forgotten
    for _ in range(4):
        hand.now += 0.5 - 10.0 * (_ == 0)
        clock.tick()
        with clock.paused():
            hand.now += 100.0
    assert clock.rate == pytest.approx(2.0)
    hand.now += 1.0
    clock.tick(steps=8)
    assert clock.rate == pytest.approx((3 + 8) / (1.5 + 1.0))
