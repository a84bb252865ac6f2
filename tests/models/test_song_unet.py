"""SongUNet against the official implementation, the published counts, and its start near zero."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from losses.meanflow import MeanFlow
from models.song_unet import SongUNet, doubled, halved
from runtime.errors import UsageError
from runtime.op import Context
from tests.models.formula_weights import formula, weight
from tests.models.test_models import make

FIXTURES = json.loads((Path(__file__).parent / "fixtures_song_unet.json").read_text())
COLUMNS = [0, 2, 5, 6, 7, 8]
TINY = {"channels": 8, "multipliers": [2, 2], "blocks": 1, "attention": [8]}


def array(name, shape, scale=1.0):
    return mx.array((scale * formula(name, shape)).astype(np.float32))


@pytest.mark.parametrize(("augment", "count"), [([], 55_929_347), (COLUMNS, 55_932_419)])
def test_counts_equal_the_published_ones(augment, count):
    model = make("song_unet", [32, 32, 3], small=False, augment=augment)  # lazy: the weights are never computed
    assert sum(p.size for _, p in tree_flatten(model.parameters())) == count


@pytest.mark.parametrize("augment", [[], COLUMNS])
def test_equals_the_official_implementation(augment):
    model = SongUNet([16, 16, 3], **TINY, augment=augment)
    drawn = [(name, mx.array(weight(name, p.shape))) for name, p in tree_flatten(model.parameters())]
    model.update(tree_unflatten(drawn))
    given = {}
    if augment:  # the six official labels in their columns; the others must not be seen
        six, nine = formula("labels", (2, 6)), np.full((2, 9), 100.0)
        nine[:, augment] = six
        given["augment"] = mx.array(nine.astype(np.float32))
    # the official clock has noise at 1: t = .7 and h = .25 are the pair (.3, .55)
    times, along = mx.array([[0.3, 0.55], [0.7, 0.7]]), mx.broadcast_to(mx.array([1.0, 0.0]), (2, 2))
    point, tangent = [array("x", (2, 16, 16, 3), 3), times], [array("dx", (2, 16, 16, 3), 3), along]
    outs, slopes = mx.jvp(lambda x, times: model(x, times, **given), point, tangent)
    for key, got in (("u", outs[0]), ("du", slopes[0])):
        wanted = np.array(FIXTURES["augmented" if augment else "plain"][key])
        np.testing.assert_allclose(np.array(got).ravel()[::31], wanted, atol=2e-5 * np.abs(wanted).max(), rtol=0)


def test_starts_near_zero():
    model, x = make("song_unet"), array("x", (2, 8, 8, 3))
    out = model(x, mx.array([[0.1, 0.9], [0.2, 0.3]]))
    assert 0 < mx.abs(out).max().item() < 1e-4


def test_filters():
    """By hand: [1, 3, 3, 1] over zeros beyond the edge, along both axes alike."""
    line = mx.array([1.0, 2.0, 3.0, 4.0])
    flat = mx.broadcast_to(line[None, None, :, None], (1, 4, 4, 1))
    down, up = np.array([12.0, 23.0]) / 8, np.array([3, 5, 7, 9, 11, 13, 15, 12]) / 4
    edge_down, edge_up = np.array([7.0, 7.0]) / 8, np.array([3, 4, 4, 4, 4, 4, 4, 3]) / 4  # of a row of ones
    for f, across, along in ((halved, down, edge_down), (doubled, up, edge_up)):
        np.testing.assert_allclose(np.array(f(flat))[0, :, :, 0], np.outer(along, across), rtol=1e-6)
        np.testing.assert_allclose(np.array(f(flat.swapaxes(1, 2)))[0, :, :, 0], np.outer(across, along), rtol=1e-6)


def test_no_augmentation_is_zeros_and_every_column_counts():
    model = make("song_unet", augment=COLUMNS)
    x, times = array("x", (2, 8, 8, 3), 3), mx.array([[0.1, 0.9], [0.2, 0.3]])
    plain = model.embedded(times, None, None)
    assert mx.allclose(model.embedded(times, None, mx.zeros((2, 9))), plain, atol=1e-6).item()
    moved = [mx.abs(model.embedded(times, None, 3 * mx.eye(9)[i : i + 1] * mx.ones((2, 1))) - plain).max().item()
             for i in range(9)]  # fmt: skip
    assert [i for i, distance in enumerate(moved) if distance > 1e-3] == COLUMNS
    objective = MeanFlow(conditions=["augment"], jvp_share=0.5)
    objective.check(model)
    context = Context("train", mx.random.key(0), mx.array(0), mx.array(0))
    loss, _ = objective(model, {"x": x, "augment": mx.ones((2, 9))}, context)
    assert np.isfinite(loss.item())
    with pytest.raises(UsageError, match=r"\(2, 9 or more\).*got \(2, 6\)"):
        model(x, times, augment=mx.ones((2, 6)))
    with pytest.raises(UsageError, match=r"augment=\[\]"):
        make("song_unet")(x, times, augment=mx.ones((2, 9)))


def test_wrong_sizes():
    with pytest.raises(UsageError, match="multiples of 4, got 30 x 32"):
        SongUNet([30, 32, 3])
    with pytest.raises(UsageError, match="heads"):
        make("song_unet", heads=3)
    with pytest.raises(UsageError, match="multiple of 4, got 6"):
        make("song_unet", channels=6)
