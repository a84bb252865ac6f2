"""Rows of a table: trained as PyTorch trains them, in batches whose ids repeat, outside of compiled state.

The numbers of fixtures_optimizers.json under sign_sgd were made by TinyRecursiveModels' own sparse embedding and its
SignSGD (PyTorch 2.13): a table of six rows, the ids and slopes of four batches, and the table after each.
"""

import json
from functools import partial
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

from optimizers.schedules import Constant
from optimizers.sign_sgd import SignSGD
from runtime.errors import UsageError
from runtime.op import Objective, ObjectiveOp
from runtime.slots import restore, snapshot
from runtime.table import Table
from tests.training.by_hand import KEY
from training.forward import ForwardStep, judged_arrays
from training.network import Network
from training.rows import summed
from training.step import TrainStep
from training.update import UpdateOp

FIXTURE = json.loads((Path(__file__).parents[1] / "optimizers" / "fixtures_optimizers.json").read_text())["sign_sgd"]
SETTINGS = {"learning_rate": FIXTURE["rate"], "optimizer": partial(SignSGD, weight_decay=FIXTURE["weight_decay"])}


class Product(Objective):
    """The sum of rows times slopes, times a weight; for tests."""

    identifier = "puzzle"
    extras = ("seen",)

    def __call__(self, model, batch, ctx):
        rows = batch["rows"]
        assert rows.dtype == mx.float32
        loss = (rows * batch["slope"]).sum() * model.weight
        return loss, {"seen": mx.stop_gradient(rows)}


class Scale(nn.Module):
    def __init__(self, start=FIXTURE["start"]):
        super().__init__()
        self.weight = mx.array(1.0)
        self.table = Table(len(start), len(start[0]))
        self.table.state["rows"] = mx.array(start)


def step_of(model=None, table=SETTINGS, optimizer="sgd", options=None, **settings):
    model = model or Scale()
    update = UpdateOp(model, "loss", optimizer, 0.0, table=table, **(options or {}))
    return TrainStep(Network([ObjectiveOp(model, Product()), update]), **settings)


def batch_of(i, slope=None):
    return {"puzzle": mx.array(FIXTURE["ids"][i], mx.int32), "slope": mx.array(slope or FIXTURE["slopes"][i])}


def rows_of(step):
    return np.array(step.state["table"].state["rows"])


@pytest.mark.parametrize(
    "settings",
    [{}, {"compile": False}, {"precision": "bf16"}, {"flatten": True}],
    ids=lambda settings: ", ".join(map(str, settings.values())) or "compiled",
)
def test_rows_are_trained_as_in_pytorch(settings):
    step = step_of(**settings)
    for i, wanted in enumerate(FIXTURE["tables"]):
        before = rows_of(step)
        out = step(batch_of(i), KEY, fetch=["seen"])
        np.testing.assert_array_equal(np.array(out["seen"]), before[FIXTURE["ids"][i]])
        np.testing.assert_allclose(rows_of(step), wanted, rtol=0, atol=1e-6)
        untouched = sorted(set(range(6)) - set(FIXTURE["ids"][i]))
        np.testing.assert_array_equal(rows_of(step)[untouched], before[untouched])


def test_sums_over_equal_ids_are_the_same_in_every_one_of_their_rows():
    rng = np.random.default_rng(0)
    ids, gradient = rng.integers(0, 40, 300), rng.normal(size=(300, 70)).astype(np.float32)
    found = np.array(summed(mx.array(gradient), mx.array(ids)))
    wanted = np.stack([gradient[ids == i].astype(np.float64).sum(0) for i in ids])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    for i in range(40):
        assert (found[ids == i] == found[ids == i][:1]).all()


def test_the_rate_of_rows_follows_schedule_and_scale_and_their_gradient_is_not_in_the_norm():
    step = step_of(options={"schedule": Constant(warmup=2), "clip": 1e-3})
    step.network.updates[0].state["scale"] = mx.array(0.5)
    for wanted in (0.25, 0.5):  # of the rate: half in the first of two steps of warm-up, and half by the scale
        before, rate = rows_of(step)[0], wanted * FIXTURE["rate"]
        out = step(batch_of(1), KEY)
        moved = before * (1 - rate * FIXTURE["weight_decay"]) - rate * np.sign(np.sum(FIXTURE["slopes"][1], axis=0))
        np.testing.assert_allclose(rows_of(step)[0], moved, atol=1e-6)
        product = (before * np.array(FIXTURE["slopes"][1])).sum()
        np.testing.assert_allclose(out["grad_norm"].item(), abs(product), rtol=1e-5)


def test_a_step_that_is_not_finite_leaves_rows_and_optimizer():
    step = step_of()
    step(batch_of(0), KEY)
    before = {path: np.array(a) for path, a in snapshot(step.state).items() if path not in ("step", "streak")}
    spoilt = np.array(FIXTURE["slopes"][2])
    spoilt[0, 0] = np.nan
    out = step(batch_of(2, spoilt.tolist()), KEY)
    after = snapshot(step.state)
    assert out["skipped"].item() == 1 and before.pop("skipped") == 0
    for path, array in before.items():
        np.testing.assert_array_equal(np.array(after[path]), array, err_msg=path)
    step(batch_of(2), KEY)
    assert not np.array_equal(rows_of(step), before["table.rows"])


def test_a_gradient_of_rows_that_overflows_is_seen():
    step, before = step_of(), np.array(FIXTURE["start"])
    step(batch_of(1, np.full((4, 3), 3e38).tolist()), KEY)  # each is finite, and so is the loss of rows of 0
    np.testing.assert_array_equal(rows_of(step), before.astype(np.float32))


def test_a_restored_step_goes_on_to_the_last_bit():
    first, second = step_of(), step_of()
    for i in (0, 1):
        first(batch_of(i), KEY)
    kept = {path: mx.array(np.array(a)) for path, a in snapshot(first.state).items()}
    assert kept["table.rows"].shape == (6, 3)
    second(batch_of(3), KEY)  # its step is compiled already when the state is put in place
    restore(second.state, kept, "a checkpoint")
    for step in (first, second):
        for i in (2, 3):
            step(batch_of(i), KEY)
    np.testing.assert_array_equal(rows_of(second), rows_of(first))


def test_an_evaluation_gets_rows_and_changes_none():
    step = step_of()
    seen = ForwardStep(step.network, "eval")(judged_arrays(step.network), batch_of(0), KEY, ["seen"])["seen"]
    start = np.array(FIXTURE["start"], np.float32)
    np.testing.assert_array_equal(np.array(seen), start[FIXTURE["ids"][0]])
    np.testing.assert_array_equal(rows_of(step), start)


@pytest.mark.usefixtures("still_memory")
def test_a_table_is_never_copied_and_no_leaf():
    model = Scale()
    model.table = Table(500_000, 64)
    step = step_of(model, optimizer="adam", options={"ema": [0.9]})
    batch = {"puzzle": mx.array([3, 499_999, 3]), "slope": mx.ones((3, 64))}
    size = 500_000 * 64 * 4
    mx.eval(step(batch, KEY), step.state)
    mx.eval(step(batch, KEY), step.state)
    mx.reset_peak_memory()
    start = mx.get_active_memory()
    for _ in range(3):
        mx.eval(step(batch, KEY), step.state)
    assert mx.get_peak_memory() - start < size / 10
    assert sum(a.size for path, a in snapshot(step.state).items() if not path.startswith("table.")) < 20


@pytest.mark.parametrize("wrong", [-1, 6])
def test_an_id_without_a_row_is_refused(wrong):
    step = step_of()
    batch = batch_of(0) | {"puzzle": mx.array([0, wrong, 1, 2])}
    with pytest.raises(UsageError, match=f"6 rows.*'puzzle'.*0..5, got {wrong}"):
        step(batch, KEY)
    with pytest.raises(UsageError, match=f"got {wrong}"):
        ForwardStep(step.network, "eval")(judged_arrays(step.network), batch, KEY, ["seen"])


class Nothing(Scale):
    def __init__(self):
        super().__init__()
        self.table = None


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: step_of(accumulate=2), "accumulate=1, got 2"),
        (lambda: step_of(table=None), "a table and 0 such UpdateOps"),
        (lambda: step_of(Nothing()), "no table and 1 such UpdateOps"),
        (lambda: step_of(table={"optimizer": optim.Adam, "learning_rate": 1.0}), "Adam keeps m, v"),
        (lambda: step_of(options={"merge_grad": 2}), "merge_grad"),
        (lambda: Table(0, 3), "count=0"),
        (lambda: SignSGD(0.1, weight_decay=-0.5), "got -0.5"),
    ],
)
def test_what_does_not_fit_a_table_is_refused(make, said):
    with pytest.raises(UsageError, match=said):
        make()


def test_rows_start_as_zeros_or_draws():
    assert not np.array(Table(5, 4).state["rows"]).any()
    mx.random.seed(0)
    np.testing.assert_allclose(np.array(Table(1000, 10, std=0.3).state["rows"]).std(), 0.3, rtol=0.03)
