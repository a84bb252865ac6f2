"""Counted traces: one for each step that a run needs, and the reason where there are more."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from runtime.errors import UsageError
from runtime.op import ObjectiveOp
from tests.traces.small import estimator
from tests.training.by_hand import KEY, Adam, Apply, Regression, batches, mlp
from traces.io.record import MetricLogger
from training.forward import ForwardStep, judged_arrays
from training.network import Network
from training.step import TrainStep
from training.tracing import MOST, Traces, difference, eager
from training.update import UpdateOp


def step_of(*ops, **options):
    model = mlp()
    return TrainStep(Network([*ops, ObjectiveOp(model, Regression()), UpdateOp(model, "loss", Adam)]), **options)


def test_a_run_traces_one_step_a_mode_and_says_nothing(capsys):
    trainer = estimator([MetricLogger(every=2)], epochs=2)
    trainer.fit()
    assert trainer.traced == 2 and "compiled" not in capsys.readouterr().out
    assert [row["perf/traces"] for row in trainer.summary.history if "perf/traces" in row] == [2] * 4
    trainer.test()
    assert trainer.traced == 3


def test_accumulation_and_named_data_sets_need_two(capsys):
    step = step_of(accumulate=2)
    for number, batch in enumerate(batches(4)):
        step(batch, KEY, (), number % 2 == 1)
    assert step.traces.count == 2
    step = step_of()
    for number, batch in enumerate(batches(4)):
        step(batch, KEY, ds_id="ab"[number % 2])
    assert step.traces.count == 2 and capsys.readouterr().out == ""


def test_another_shape_is_told_once_with_both(capsys):
    step = step_of()
    for rows in (8, 8, 6, 8, 5):
        step(batches(1, rows=rows)[0], KEY)
    said = capsys.readouterr().out
    assert step.traces.count == 3 and said.count("warning") == 1
    assert "the training step is compiled again (2 times so far)" in said
    assert "batch.x is (6, 2) float32, was (8, 2) float32; batch.y is (6, 2) float32, was (8, 2) float32." in said


def test_another_dtype_is_told(capsys):
    step, (batch,) = step_of(), batches(1)
    step(batch, KEY)
    step(batch | {"y": batch["y"].astype(mx.float16)}, KEY)
    assert "inputs changed: batch.y is (8, 2) float16, was (8, 2) float32." in capsys.readouterr().out


def test_a_state_that_changes_its_shape_is_told(capsys):
    step = step_of(Apply("kept", lambda data, ctx: {"kept": data["kept"] + 1}, carry=("kept",)))
    batch = batches(1)[0]
    step.start(batch)
    step(batch, KEY)
    step.state["carry"]["kept"] = mx.zeros(1)
    step(batch, KEY)
    assert "state.carry.kept is (1,) float32, was (8,) float32" in capsys.readouterr().out


def test_evaluation_is_counted_too(capsys):
    network = step_of().network
    forward = ForwardStep(network, "eval")
    for rows in (8, 8, 3):
        forward(judged_arrays(network), batches(1, rows=rows)[0], KEY, ("loss",))
    assert forward.traces.count == 2
    assert (
        "the step of mode eval is compiled again" in (said := capsys.readouterr().out) and "batch.x is (3, 2)" in said
    )


class Phased(Apply):
    """An op whose graph depends on the step modulo `period`."""

    def __init__(self, period):
        super().__init__("z", lambda data, ctx: {"z": data["x"] * ctx.phase})
        self.period = period

    def phase(self, step):
        return step % self.period


@pytest.mark.parametrize(("period", "traces", "told"), [(3, 3, 0), (1000, MOST + 3, 1)])
def test_a_phase_that_never_comes_again_is_told(period, traces, told, capsys):
    step, (batch,) = step_of(Phased(period)), batches(1)
    for number in range(MOST + 3):
        step(batch, KEY, phases=step.network.phases(number))
    said = capsys.readouterr().out
    assert step.traces.count == traces and said.count("warning") == told
    if told:
        assert f"compiled {MOST + 1} times, for {MOST + 1} different phases" in said


def test_uncompiled_steps_are_not_counted_and_share_the_state():
    step, (batch,) = step_of(), batches(1)
    twin = eager(step)
    twin(batch, KEY)
    assert step.traces.count == 0 and not twin.compile and step.compile and step.state["step"].item() == 1
    step(batch, KEY)
    assert step.traces.count == 1 and twin.state["step"].item() == 2


def test_a_difference_names_three_at_most_and_what_it_cannot_see():
    before = {name: "(1,) float32" for name in "abcde"}
    now = {name: "(2,) float32" for name in "abcd"} | {"e": "(1,) float32"}
    assert difference(before, now).endswith("c is (2,) float32, was (1,) float32 and 1 more")
    assert difference(before, before) == "a Python value that it reads"


def test_a_function_is_counted_where_mlx_traces_it():
    model = nn.Linear(2, 2)
    traces = Traces("function", model)
    function = mx.compile(traces.counted(model, "f", ("x",)))
    for rows in (1, 1, 2, 1):
        mx.eval(function(mx.zeros((rows, 2))))
    assert traces.count == 2


class Dropped(Regression):
    """Draws as nn.Dropout does, from MLX's global random state."""

    def __call__(self, model, batch, ctx):
        return super().__call__(model, batch | {"x": nn.Dropout(0.5)(batch["x"])}, ctx)


def test_a_draw_from_the_global_state_is_refused_since_it_would_be_the_same_in_every_step():
    model = mlp()
    step = TrainStep(Network([ObjectiveOp(model, Dropped()), UpdateOp(model, "loss", Adam)]))
    held = {path: leaf for path, leaf in tree_flatten(model.parameters())}
    with pytest.raises(UsageError, match="training step draws from MLX's global random state"):
        step(batches(1)[0], KEY)
    assert all(leaf is held[path] for path, leaf in tree_flatten(model.parameters()))
