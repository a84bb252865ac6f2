"""DiT against the official implementation, the published counts, and its start at zero."""

import json
from functools import partial
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from losses.meanflow import MeanFlow
from models.dit import DiT, grid_positions
from models.tokens import patchify, unpatchify
from runtime.errors import UsageError
from runtime.op import Context
from tests.models.formula_weights import formula, weight
from tests.models.test_models import make

FIXTURES = json.loads((Path(__file__).parent / "fixtures_dit.json").read_text())
LATENTS = [32, 32, 4]
COUNTS = {  # as published or counted in the official code: 1000 classes and none, both time embeddings
    ("dit_s", 2): 33_105_424,
    ("dit_b", 2): 131_091_472,
    ("dit_b", 4): 131_165_248,
    ("dit_m", 2): 308_019_216,
    ("dit_l", 2): 459_137_040,
    ("dit_xl", 2): 676_440_592,
}


def numbers(model):
    return sum(p.size for _, p in tree_flatten(model.parameters()))


@pytest.mark.parametrize(("name", "patch"), list(COUNTS))
def test_counts_equal_the_published_ones(name, patch):
    before = mx.get_active_memory()
    model = make(name, LATENTS, classes=1000, small=False, patch=patch)
    assert numbers(model) == COUNTS[name, patch]
    assert mx.get_active_memory() - before < 20e6  # lazy: no weight is ever computed


@pytest.mark.parametrize("name", ["dit_m", "dit_l", "dit_xl"])
def test_the_large_ones_take_a_training_step_at_depth_2(name):
    model = make(name, [4, 4, 4], classes=3, small=False, depth=2)
    objective = MeanFlow(jvp_share=1.0, conditions=["label"])
    batch = {"x": mx.array(formula("x", (2, 4, 4, 4)).astype(np.float32)), "label": mx.array([0, 2])}
    context = Context("train", mx.random.key(0), mx.array(0), mx.array(0))
    loss, gradient = nn.value_and_grad(model, lambda m: objective(m, batch, context)[0])(model)
    optimizer = optim.AdamW(1e-3)
    optimizer.update(model, gradient)
    mx.eval(model.parameters(), loss)
    assert np.isfinite(loss.item()) and mx.abs(model.leave.weight).max().item() > 5e-4  # moved away from zero


def parity(model, patch, fixtures, names, call):
    """Outputs and their jvps against the fixture's, relative to the largest number."""
    drawn = [(name, mx.array(weight(name, p.shape))) for name, p in tree_flatten(model.parameters())]
    model.update(tree_unflatten(drawn))
    x, dx = (mx.array((3 * formula(name, (2, 8, 8, 3))).astype(np.float32)) for name in ("x", "dx"))
    # the official clock has noise at 1 and takes (t, h): fed unchanged as start t, end t + h
    times = mx.array([[0.7, 0.95], [0.3, 0.3]])
    along = mx.broadcast_to(mx.array([1.0, 0.0]), (2, 2))
    outs, tangents = mx.jvp(call, [x, times], [dx, along])
    for name, out, tangent in zip(names, outs, tangents, strict=True):
        for key, got in ((name, out), (f"d{name}", tangent)):
            wanted = np.array(fixtures[f"patch {patch}"][key])
            np.testing.assert_allclose(np.array(got).ravel()[::7], wanted, atol=2e-5 * np.abs(wanted).max(), rtol=0)


@pytest.mark.parametrize("patch", [2, 4])
def test_equals_the_official_implementation(patch):
    model = DiT([8, 8, 3], patch, hidden=32, depth=2, heads=4, classes=5)
    parity(model, patch, FIXTURES, ["u"], lambda x, times: [model(x, times, label=mx.array([3, -1]))])


@pytest.mark.parametrize("patch", [2, 4])
def test_starts_as_zero_with_every_branch_closed(patch):
    mx.random.seed(0)
    model = DiT([8, 8, 3], patch, hidden=32, depth=2, heads=4, classes=5)
    x = mx.array(formula("x", (2, 8, 8, 3)).astype(np.float32))
    assert (model(x, mx.array([[0.1, 0.9], [0.2, 0.3]]), label=mx.array([0, 1])) == 0).all().item()
    tokens, condition = mx.random.normal((2, 4, 32)), mx.random.normal((2, 32))
    assert mx.array_equal(model.blocks[0](tokens, condition), tokens).item()  # adaLN-Zero: the identity
    widest = {name: mx.abs(p).max().item() for name, p in tree_flatten(model.parameters())}
    assert all((value == 0) == ("modulate" in name or name.endswith("bias") or name.startswith("leave"))
               for name, value in widest.items()), widest  # fmt: skip


def test_positions_are_sines_and_cosines_of_column_and_row():
    found = grid_positions(2, 3, 8)
    assert found.shape == (6, 8) and found.dtype == np.float32
    row, column = 1, 2  # the last patch
    wanted = [f(place * wave) for place in (column, row) for f in (np.sin, np.cos) for wave in (1.0, 0.01)]
    np.testing.assert_allclose(found[5], wanted, atol=1e-6)
    np.testing.assert_allclose(found[0], [0, 0, 1, 1, 0, 0, 1, 1], atol=1e-7)


def test_patches_go_row_by_row_and_come_back():
    x = mx.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3).astype(mx.float32)
    tokens = patchify(x, 2)
    assert tokens.shape == (2, 6, 12)
    assert mx.array_equal(tokens[1, 4], x[1, 2:4, 2:4].reshape(-1)).item()  # second row of patches, second column
    assert mx.array_equal(unpatchify(tokens, 2, (4, 6, 3)), x).item()


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"patch": 3}, "patch=3"), ({"patch": 0}, "patch=0"), ({"heads": 5}, "heads=5"), ({"heads": 0}, "heads=0"),
     ({"hidden": 18, "heads": 3}, "got 18"), ({"shape": [8]}, r"\[8\]")],
)  # fmt: skip
def test_sizes_that_do_not_divide(changes, said):
    with pytest.raises(UsageError, match=said):
        partial(DiT, **{"shape": [8, 8, 3], "hidden": 32, "heads": 4, "depth": 1, **changes})()
