"""TRM, TRM-MLP and HRM under the ACT objective against their PyTorch repositories, six training steps in a row."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from losses.act import ACT, CARRY
from models.hrm import HRM
from models.trm import TRM
from runtime.op import Context
from runtime.table import Table
from runtime.trees import flatten
from tests.models.formula_weights import formula

FIXTURES = json.loads((Path(__file__).parent / "fixtures_recursive.json").read_text())
VOCABULARY, LENGTH, ROWS, STEPS, TABLE = 7, 16, 4, 4, 5
SIZES: dict[str, Any] = {"vocabulary": VOCABULARY, "length": LENGTH, "hidden": 64, "heads": 2, "layers": 2, "low": 2}
MODELS = {
    "trm": lambda: TRM(**SIZES, high=3, prefix=3),
    "trm_mlp": lambda: TRM(**SIZES, high=2, prefix=4, mixer="mlp"),
    "hrm": lambda: HRM(**SIZES, high=2, prefix=2),
}
WIDTHS = {"trm": 100, "trm_mlp": 64, "hrm": 100}  # of a puzzle's embedding
KINDS = list(MODELS)
METRICS = ("accuracy", "exact_accuracy", "q_halt_accuracy", "steps")


@pytest.fixture(autouse=True)
def uncompiled():
    """Building kernels would take most of the time."""
    mx.disable_compile()
    yield
    mx.enable_compile()


def weight(name, shape):
    """Matrices about as at the start, vectors wider, halting logits on both sides of 0."""
    scale = 3.0 if len(shape) == 1 else 3 / np.sqrt(shape[-1])
    scale = {"q_bias": 0.2, "q_weight": 2 * scale}.get(name, scale)
    return mx.array((formula(name, shape) * scale).astype(np.float32))


def made(kind):
    model = MODELS[kind]()
    drawn = [(name, weight(name, p.shape)) for name, p in flatten(model.parameters()).items()]
    model.update(tree_unflatten(drawn))
    return model


def whole(name, step, high):
    """Tokens (B, S) from 0 to high - 1."""
    return np.floor((formula(f"{name} {step}", (ROWS, LENGTH)) + 0.5) * high).astype(np.int32)


def batch_of(step):
    """New puzzles; the rows ask about 1 (none in step 4), 1, 8 and 16 tokens."""
    label = whole("labelr", step, VOCABULARY)
    for row, kept in enumerate((0 if step == 4 else 1, 1, 8, 16)):
        label[row, kept:] = -100
    puzzle = (3 * step + 2 * np.arange(ROWS)) % TABLE
    return {"x": mx.array(whole("x", step, VOCABULARY)), "label": mx.array(label),
            "puzzle": mx.array(puzzle.astype(np.int32))}  # fmt: skip


def few(array, count=6):
    flat = np.array(array).astype(np.float64).ravel()
    return [*flat[:: max(1, flat.size // count)][:count], np.sqrt((flat**2).sum())]


def same(got, wanted, name, tolerance=1e-4):
    """Relative to the largest number of them."""
    wanted = np.array(wanted)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max(), err_msg=name)


def step_of(model, objective, batch, carry, table, mode="train"):
    """Loss, what else it gives, and the gradients of weights and embedding rows."""
    halted = carry["carry_halted"]
    rows = table[mx.where(halted, batch["puzzle"], carry["carry_puzzle"])]
    context = Context(mode, mx.random.key(0), mx.array(0), mx.array(0))
    kept = {}

    def loss_of(parameters, rows):
        model.update(parameters)
        loss, found = objective(model, {**batch, **carry, "rows": rows}, context)
        kept.update(found)
        return loss

    before = model.trainable_parameters()
    loss, (gradients, of_rows) = mx.value_and_grad(loss_of, argnums=(0, 1))(before, rows)
    model.update(before)
    return loss, kept, dict(tree_flatten(gradients)) | {"rows": of_rows}


def run(kind, visit, steps=6):
    """Calls visit(step, wanted, loss, found, gradients) after each training step, the weights as they are."""
    model, objective = made(kind), ACT(STEPS, exploration=0.0, q_continue=kind == "hrm")
    table = weight("rows", (TABLE, WIDTHS[kind]))
    carry = objective.initial_carry(model, batch_of(0))
    for step in range(steps):
        loss, found, gradients = step_of(model, objective, batch_of(step), carry, table)
        visit(step, FIXTURES[kind]["training"][step], loss, found, gradients)
        carry = {name: found[name] for name in CARRY}


@pytest.mark.parametrize("kind", KINDS)
def test_losses_halting_and_carry_equal_the_reference(kind):
    def visit(step, wanted, loss, found, gradients):
        same(loss.item(), wanted["loss"], f"loss of step {step}")
        for name in ("halted", "steps", "puzzle"):
            assert np.array(found[f"carry_{name}"]).astype(int).tolist() == wanted[name], (step, name)
        same(few(found["carry_y"]), wanted["y"], f"y of step {step}")
        same(few(found["carry_z"]), wanted["z"], f"z of step {step}")
        metrics = wanted["metrics"]
        for name in METRICS:
            mean = metrics[name] / metrics["count"] if metrics["count"] else np.nan
            np.testing.assert_allclose(found[name].item(), mean, rtol=1e-5, err_msg=f"{name} of step {step}")
        np.testing.assert_allclose(found["token_loss"].item(), metrics["lm_loss"] / ROWS, rtol=1e-4)
        np.testing.assert_allclose(found["q_halt_loss"].item(), metrics["q_halt_loss"] / ROWS, rtol=1e-4)

    run(kind, visit)
    halted = np.array([wanted["halted"] for wanted in FIXTURES[kind]["training"]])
    assert 0 < halted.mean() < 1 and (halted.any(axis=1) & ~halted.all(axis=1)).any()  # else the test says little


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_every_step_equal_the_reference(kind):
    def visit(step, wanted, loss, found, gradients):
        assert gradients.keys() == wanted["gradients"].keys()
        for name, numbers in wanted["gradients"].items():
            same(few(gradients[name]), numbers, f"{name} of step {step}")

    run(kind, visit)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_of_the_first_step_equal_the_reference(kind):
    model, batch = made(kind), batch_of(0)
    rows = weight("rows", (TABLE, WIDTHS[kind]))[batch["puzzle"]]
    _, _, logits, q = model(batch["x"], *model.start(ROWS), rows)
    wanted = FIXTURES[kind]["training"][0]
    same(few(logits, 24), wanted["logits"], "logits")
    same(np.array(q).ravel(), wanted["q"], "halting logits")


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_equals_the_reference(kind):
    """Explorers there would be in training: nothing of them in evaluation."""
    model, objective, batch = made(kind).eval(), ACT(STEPS, exploration=1.0, q_continue=kind == "hrm"), batch_of(6)
    model.table = Table(TABLE, WIDTHS[kind])
    model.table.state["rows"] = weight("rows", (TABLE, WIDTHS[kind]))
    batch["rows"] = model.table[batch["puzzle"]]
    wanted = FIXTURES[kind]["evaluation"]
    found = list(objective.rollout(model, batch))
    assert len(found) == len(wanted["steps"]) == STEPS
    for (predictions, q, _), step in zip(found, wanted["steps"], strict=True):
        assert predictions[0].tolist() == step["predictions"]
        same(np.array(q), step["q"], "halting logit")
    loss, metrics = objective(model, batch, Context("eval", mx.random.key(0), mx.array(0), mx.array(0)))
    same(loss.item(), wanted["loss"], "loss")
    for name in METRICS:
        assert metrics[name].sum().item() == pytest.approx(wanted["metrics"][name], rel=1e-5), name


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_is_close_to_the_reference(kind):
    model, batch = made(kind), batch_of(0)
    model.set_dtype(mx.bfloat16)
    rows = weight("rows", (TABLE, WIDTHS[kind]))[batch["puzzle"]]
    _, _, logits, q = model(batch["x"], *model.start(ROWS), rows)
    assert logits.dtype == mx.bfloat16 and q.dtype == mx.float32
    wanted = FIXTURES[kind]["training"][0]
    same(few(logits.astype(mx.float32), 24), wanted["logits"], "logits", tolerance=0.1)
    same(np.array(q).ravel(), wanted["q"], "halting logits", tolerance=0.1)
