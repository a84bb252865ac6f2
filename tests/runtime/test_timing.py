"""Clocks, driven by a hand-turned clock so that nothing depends on the machine's speed."""

import mlx.core as mx
import pytest

from runtime.timing import StepClock, Timer


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
    assert "epoch/step" in timer.report() and "3000.000 ms" in timer.report()


def test_the_block_evaluates_what_it_waits_for_before_the_clock_stops(monkeypatch):
    order = []
    hand = Hand()
    timer = Timer(clock=lambda: (order.append("clock"), hand.now)[1])
    evaluate, synchronize = mx.eval, mx.synchronize
    monkeypatch.setattr(mx, "eval", lambda *args: (order.append("eval"), evaluate(*args)))
    monkeypatch.setattr(mx, "synchronize", lambda *args: (order.append("sync"), synchronize(*args)))
    with timer("step") as block:
        block.wait({"a": [mx.ones(3) + 1]})
    assert order == ["sync", "clock", "eval", "sync", "clock"]


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
