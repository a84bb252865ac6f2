"""Walks over nests: nothing under a list or a tuple is missed."""

import mlx.core as mx
import mlx.nn as nn
import pytest

from runtime.trees import count_parameters, first_nonfinite, flatten, unflatten


def test_flatten_finds_arrays_under_lists_tuples_and_modules():
    tree = {"a": [mx.array(1), (mx.array(2), {"b": mx.array(3)})], "m": nn.Sequential(nn.Linear(2, 3), nn.ReLU())}
    names = flatten(tree)
    assert set(names) == {"a.0", "a.1.0", "a.1.1.b", "m.layers.0.weight", "m.layers.0.bias"}
    assert names["m.layers.0.weight"] is tree["m"].layers[0].weight


def test_unflatten_inverts_flatten():
    tree = {"a": [mx.array(1), {"b": mx.array(2)}], "c": {"d": mx.array(3)}}
    again = unflatten(flatten(tree))
    assert again["a"][1]["b"].item() == 2 and again["c"]["d"].item() == 3 and again["a"][0].item() == 1


def test_count_by_hand_shared_once_frozen_apart():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm(5), nn.Linear(5, 2))
    assert count_parameters(model) == 4 * 5 + 5 + 4 * 5 + 5 * 2 + 2
    assert count_parameters(model, trainable=True) == 4 * 5 + 5 + 2 * 5 + 5 * 2 + 2  # running statistics are frozen
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied.layers[1].weight = tied.layers[0].weight
    assert count_parameters(tied) == 9 + 3 + 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_first_nonfinite_names_the_first_in_order(bad):
    tree = {"a": mx.ones((3,)), "n": mx.array([1, 2]), "b": [mx.ones(2), mx.array([0.0, bad])], "c": mx.array(bad)}
    assert first_nonfinite(tree) == "b.1"
    assert first_nonfinite({"h": mx.array(bad, mx.float16)}) == "h"
    assert first_nonfinite({"a": tree["a"], "n": tree["n"]}) is None
    assert first_nonfinite({"n": tree["n"]}) is None and first_nonfinite({}) is None
