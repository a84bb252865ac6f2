"""Weights by formula for any module, and its outputs against those of a PyTorch reference with the same weights.

fixtures_architectures.json holds numbers only: FastEstimator 1.7 (its PyTorch classes and those of its apphub),
torchvision's and torch.nn's modules were given `drawn` weights by our names, transposed to their layouts, and the same
inputs; kept are the parameters' count and about a hundred evenly spaced outputs of each.
"""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from tests.models.formula_weights import formula

FIXTURES = json.loads((Path(__file__).parent / "fixtures_architectures.json").read_text())


def drawn(name, shape):
    """Norms' weights and running variances about 1; matrices and kernels about as He's normal start."""
    value = formula(name, tuple(shape))
    if ("norm" in name and name.endswith("weight")) or name.endswith("running_var"):
        value = 1 + value
    elif len(shape) > 1:
        value = value * 5 / np.sqrt(np.prod(shape[1:]))
    return value.astype(np.float32)


def filled(model, training=False):
    """The model with `drawn` weights and statistics."""
    arrays = tree_flatten(model.parameters())
    model.update(tree_unflatten([(name, mx.array(drawn(name, a.shape))) for name, a in arrays]))
    return model.train(training)


def given(name, shape):
    """An input of numbers in [-1, 1]."""
    return mx.array((2 * formula(name, tuple(shape))).astype(np.float32))


def compare(case, out, tolerance=2e-5, key="out"):
    """`out` against the fixture's numbers, relative to the largest."""
    wanted = np.array(FIXTURES[case][key])
    got = np.array(out).ravel()
    got = got[:: max(1, len(got) // 100)]
    np.testing.assert_allclose(got, wanted, atol=tolerance * np.abs(wanted).max(), rtol=0)


def numbers(model):
    """How many numbers train."""
    return sum(p.size for _, p in tree_flatten(model.trainable_parameters()))
