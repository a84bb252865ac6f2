"""Walks over nests: nothing under a list or a tuple is missed."""

from collections import namedtuple
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from runtime.errors import UsageError
from runtime.trees import count_parameters, detach, flatten, hidden, leaves, tree_map, unflatten
from tests.runtime.nets import PATHS, TOTAL, TRAINABLE, Nest

Pair = namedtuple("Pair", "left right")


@dataclass
class Held:
    x: mx.array
    note: str = "none"


def test_what_mlx_sees_no_parameters_of_is_found_where_it_stands():
    model = nn.Module()
    model.rows = [nn.Linear(2, 2), {"deep": (nn.Linear(2, 2),), "sizes": (1, 2)}]
    model.scales, model.tags, model.own = (1.0, [mx.ones(2)]), {"a", "b"}, (np.ones(2), "constant")
    model._kept, model.pair = (mx.ones(2),), Pair(3, None)
    assert list(hidden({"net": model})) == ["net.rows.1.deep", "net.scales"]
    seen = set(flatten(model.parameters()))
    assert not seen & {"rows.1.deep.0.weight", "scales.1.0"} and "rows.0.weight" in seen
    model.several = {mx.ones(2)}
    assert list(hidden(model))[-1] == "several"


def test_flatten_finds_arrays_under_lists_tuples_modules_and_dataclasses():
    tree = {"a": [mx.array(1), (mx.array(2), {"b": mx.array(3)})], "m": nn.Sequential(nn.Linear(2, 3), nn.ReLU()),
            "d": [Held(mx.array(4))], 7: Pair(mx.array(5), None)}  # fmt: skip
    names = flatten(tree)
    assert set(names) == {"a.0", "a.1.0", "a.1.1.b", "m.layers.0.weight", "m.layers.0.bias", "d.0.x", "7.0"}
    assert names["m.layers.0.weight"] is tree["m"].layers[0].weight
    assert sorted(flatten(Nest())) == sorted(PATHS)


def test_arrays_alone_numpy_private_names_and_empty_trees():
    assert dict(leaves(mx.array(1), "x"))["x"].item() == 1
    assert [path for path, _ in leaves({"a": np.ones(2), "_b": mx.ones(2)})] == ["a"]
    assert [path for path, _ in leaves({"a": np.ones(2), "_b": mx.ones(2)}, private=True)] == ["a", "_b"]
    assert flatten({"a": np.ones(2)}) == {}
    for empty in ({}, [], (), None, 3.0, "text", nn.ReLU(), {"a": [{}, ()]}, Held):
        assert flatten(empty) == {}


def test_unflatten_inverts_flatten():
    tree = {"a": [mx.array(1), {"b": mx.array(2)}], "c": {"d": mx.array(3)}}
    again = unflatten(flatten(tree))
    assert again["a"][1]["b"].item() == 2 and again["c"]["d"].item() == 3 and again["a"][0].item() == 1


def test_tree_map_keeps_the_nest_and_what_is_no_array():
    tree = {"a": [mx.array([1.0]) * 2, (mx.array([3.0], mx.bfloat16), None)], "b": Pair("text", np.ones(2)), "c": {}}
    out = tree_map(lambda x, y: x + y, tree, tree)
    assert out["a"][0].item() == 4.0 and out["a"][1][0].dtype == mx.bfloat16 and out["a"][1][1] is None
    assert isinstance(out["a"][1], tuple) and isinstance(out["b"], Pair) and out["b"].left == "text"
    assert out["b"].right.tolist() == [2.0, 2.0] and out["c"] == {}
    model = Nest()
    halves = tree_map(lambda x: x.astype(mx.float16), model)
    assert set(flatten(halves)) == set(PATHS) and "_constant" not in halves
    assert {leaf.dtype for leaf in flatten(halves).values()} == {mx.float16}
    assert tree_map(lambda x: x, None) is None and tree_map(lambda x: x + 1, mx.array(1)).item() == 2


@pytest.mark.parametrize(
    ("other", "place"),
    [({"a": [mx.array(1)]}, "a"), ({"a": mx.array(1)}, "a"), ({"b": 1}, "the root"), ([1], "the root")],
)
def test_tree_map_names_where_nests_differ(other, place):
    with pytest.raises(UsageError, match=f"differ at {place}: one has"):
        tree_map(lambda x, y: x, {"a": [mx.array(1), mx.array(2)]}, other)


@pytest.mark.usefixtures("still_memory")
def test_detach_passes_no_gradient_and_lets_go_of_what_made_it():
    def loss(x):
        return (detach({"a": [x * 2]})["a"][0] * x).sum()

    assert mx.grad(loss)(mx.array([3.0])).item() == 6.0  # 2 x, not 4 x
    assert detach({}) == {} and detach([None, "a"]) == [None, "a"]

    def held(evaluate: bool) -> int:
        big = mx.zeros((1 << 20,)) + 1
        mx.eval(big)
        before = mx.get_active_memory()
        small = detach([big.sum().astype(mx.bfloat16)], evaluate)
        del big
        freed = before - mx.get_active_memory()
        assert small[0].dtype == mx.bfloat16
        return freed

    assert held(evaluate=True) > 4_000_000 and held(evaluate=False) < 1000


def test_count_by_hand_shared_once_frozen_apart():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm(5), nn.Linear(5, 2))
    assert count_parameters(model) == 4 * 5 + 5 + 4 * 5 + 5 * 2 + 2
    assert count_parameters(model, trainable=True) == 4 * 5 + 5 + 2 * 5 + 5 * 2 + 2  # running statistics are frozen
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied.layers[1].weight = tied.layers[0].weight
    assert count_parameters(tied) == 9 + 3 + 3
    assert count_parameters(Nest()) == TOTAL and count_parameters(Nest(), trainable=True) == TRAINABLE
    assert count_parameters(nn.ReLU()) == 0
