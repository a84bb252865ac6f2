"""The memory timeline: rows, a leak that is told, noise and single steps that are not."""

import re
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from runtime.errors import UsageError
from tests.traces.small import estimator
from traces import memory
from traces.memory import MIB, MemoryTimeline, grows, read
from traces.trace import Trace


class Leak(Trace):
    """Keeps `size` bf16 numbers of every step, lazily or not."""

    def __init__(self, size, lazy):
        super().__init__(mode="train")
        self.size, self.lazy, self.kept = size, lazy, []

    def on_batch_end(self, data):
        self.kept.append(mx.zeros((self.size,), mx.bfloat16) + data["ce"].astype(mx.bfloat16))
        if not self.lazy:
            mx.eval(self.kept)


def run(folder, *traces, epochs=6, **options):
    said = []
    made = estimator([*traces, MemoryTimeline(window=8, skip=2, **options)], epochs=epochs, compile=False)
    made.workspace = SimpleNamespace(folder=folder, say=said.append)
    return made, said


def test_a_row_a_step_and_a_picture(tmp_path, monkeypatch):
    order = []
    wait, usage = memory.synchronize, memory.memory_usage
    monkeypatch.setattr(memory, "synchronize", lambda *given: (order.append([*given[1]]), wait(*given)))
    monkeypatch.setattr(memory, "memory_usage", lambda: (order.append("read"), usage())[1])
    made, said = run(tmp_path)
    made.fit()
    assert order[1::2] == ["read"] * 24 and all("ce" in keys for keys in order[::2])  # waits first, each time
    rows = read(tmp_path / "memory.csv")
    assert [row[0] for row in rows] == [*range(1, 25)] and said == []
    assert all(0 <= row[1] <= row[2] and row[4] > 20 for row in rows)
    assert (tmp_path / "memory.csv").read_text().splitlines()[0] == "step,active,peak,cache,rss"
    assert Image.open(tmp_path / "memory.png").size == (720, 480)


@pytest.mark.parametrize(("size", "told"), [(MIB, True), (100, False)])
@pytest.mark.usefixtures("still_memory")
def test_a_leak_is_told_once_with_its_rate(tmp_path, size, told):
    made, said = run(tmp_path, Leak(size, lazy=False))
    made.fit()
    assert len(said) == told
    if told:
        assert "warning: active memory grows steadily" in said[0]
        rate = float(re.search(r"\((.*) KiB a step", said[0])[1])
        assert rate == pytest.approx(2048, rel=0.01)  # less exact: arrays of other tests are freed at any time
        rows = np.array(read(tmp_path / "memory.csv"))
        assert np.diff(rows[:, 1]) == pytest.approx(2.0, abs=0.1)


@pytest.mark.usefixtures("still_memory")
def test_memory_that_nobody_evaluates_shows_only_when_it_is_computed(tmp_path):
    made, said = run(tmp_path, Leak(MIB, lazy=True))
    made.fit()
    assert said == []


def test_what_grows_and_what_does_not():
    ramp = list(np.linspace(100, 103, 40))
    assert grows(ramp, 1.0) and not grows(ramp, 4.0) and not grows(ramp[::-1], 1.0)
    noise = np.random.default_rng(0).uniform(0, 50, 40)
    assert grows([a + b * (i % 3 > 0) for i, (a, b) in enumerate(zip(ramp, noise, strict=True))], 1.0)
    assert not grows([100 + b for b in noise[:37]], 1.0)
    for place in range(41):  # one step up, wherever it is
        assert not grows([100.0] * place + [500.0] * (40 - place), 1.0)
    assert not grows([100.0] * 40, 1.0)


def test_a_resumed_run_goes_on_and_an_error_leaves_rows_and_picture(tmp_path):
    made, _ = run(tmp_path, epochs=1)
    made.fit()
    with (tmp_path / "memory.csv").open("a") as file:
        file.write("5,1.0,1.0,1.0,1.0\n6,1.")  # of a sitting that was killed

    class Fails(Trace):
        def on_batch_begin(self, data):
            if self.estimator.step == 7:
                raise MemoryError

    again, _ = run(tmp_path, Fails(), epochs=3)
    again.step = 4
    (tmp_path / "memory.png").unlink()
    with pytest.raises(MemoryError):
        again.fit()
    assert [row[0] for row in read(tmp_path / "memory.csv")] == [1, 2, 3, 4, 5, 6, 7]
    assert read(tmp_path / "memory.csv")[4][4] != 1.0 and (tmp_path / "memory.png").exists()


def test_wrong_settings_are_refused():
    with pytest.raises(UsageError, match="window at least 8.*got 1, 7, 10 and 1.0"):
        MemoryTimeline(window=7)
    assert read(SimpleNamespace(exists=lambda: False)) == []  # type: ignore[arg-type]
