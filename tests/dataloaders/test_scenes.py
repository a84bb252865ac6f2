"""Scenes against pixels counted by hand and areas known in closed form."""

import numpy as np
import pytest

from dataloaders.scenes import Scenes
from dataloaders.shapes import KINDS
from runtime.errors import UsageError

RNG = np.random.default_rng(0)
# of a shape in the unit circle: disc, square of side sqrt 2, triangle, cross of two bars, ring from 1/2 to 1
AREAS = {"disc": np.pi, "square": 2.0, "triangle": 27**0.5 / 4, "cross": 4 * 1.9 * 0.3 - 0.36, "ring": np.pi * 3 / 4}


def taken(count=200, **options):
    batch = Scenes(count=count, noise=0.0, **options).take(np.arange(count), RNG)
    return batch["x"], batch["target"][..., 0]


@pytest.mark.parametrize("wanted", KINDS)
def test_the_mask_of_one_shape_is_where_pixels_differ_from_the_ground(wanted):
    x, target = taken(shapes=1, size=64, wanted=wanted)
    seen = np.abs(x - x[:, :1, :1]).sum(-1) > 1e-3  # the corner is ground: a shape's centre lies a radius away from it
    has = target.any(axis=(1, 2))
    assert 20 < has.sum() < 60  # a fifth of 200
    assert not (target.astype(bool) & ~seen).any()
    rim = seen[has].sum((1, 2)) - target[has].sum((1, 2))  # pixels that are less than half covered
    assert (rim >= 0).all() and rim.max() < 100
    radii = np.sqrt(target[has].sum((1, 2)) * (2 / 64) ** 2 / AREAS[wanted])
    assert 0.24 < radii.min() < 0.31 and 0.44 < radii.max() < 0.51  # drawn from .25 to .5
    assert abs(radii.mean() - 0.375) < 0.03


def test_masks_of_all_kinds_part_what_is_in_front():
    scenes = [taken(shapes=4, wanted=wanted) for wanted in KINDS]
    x, masks = scenes[0][0], np.stack([mask for _, mask in scenes])
    assert masks.sum(0).max() == 1  # no pixel shows two
    np.testing.assert_array_equal(masks.sum(0), taken(shapes=4)[1])
    ground = np.clip(x - np.median(x.reshape(200, -1, 3), axis=1)[:, None, None], -2, 2)
    bare = (np.abs(ground).sum(-1) < 1e-6) & (masks.sum(0) == 1)  # shapes of the ground's own colour are rare
    assert bare.mean() < 0.05
    alone = np.array([AREAS[kind] for kind in KINDS]) * (0.5**3 - 0.25**3) / (3 * 0.25) / 4  # mean share of an image
    shown = masks.mean((1, 2, 3))
    assert (shown < 0.8 * alone * 1.15).all() and (shown > 0.8 * alone * 0.7).all()  # 4 shapes of 5 kinds, some hidden


def test_an_image_depends_on_seed_and_number_alone():
    source, other = Scenes(count=50), Scenes(count=90)
    whole = source.take(np.arange(50), RNG)
    few = other.take(np.array([7, 3]), np.random.default_rng(9))
    for key in ("x", "target"):
        np.testing.assert_array_equal(whole[key][[7, 3]], few[key])
        assert whole[key].dtype == np.float32
    assert source.fingerprint() != Scenes(count=50, seed=1).fingerprint()
    assert not np.array_equal(Scenes(count=50, seed=1).take(np.arange(2), RNG)["x"], whole["x"][:2])
    noisy, plain = (Scenes(count=50, noise=n).take(np.arange(50), RNG)["x"] for n in (0.1, 0.0))
    inside = np.abs(plain) < 0.6
    assert abs((noisy - plain)[inside].std() - 0.1) < 0.003


@pytest.mark.parametrize(
    ("options", "said"),
    [({"wanted": "star"}, "got 'star'"), ({"count": 0}, "count must be at least 1"), ({"size": 7}, "got 7"),
     ({"shapes": 0}, "shapes must be at least 1")],
    ids=str,
)  # fmt: skip
def test_mistakes_are_told(options, said):
    with pytest.raises(UsageError, match=said):
        Scenes(**options)
