"""The one way from an array to a number or a list: bfloat16, NaN, integers, several elements, texts."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest

from runtime.errors import UsageError
from training.data import Data, as_numpy, one_number, plain


@pytest.mark.parametrize(("given", "wanted"), [
    (mx.array(1.5, mx.bfloat16), 1.5), (mx.array([[2.5]], mx.float16), 2.5), (np.float32(0.5), 0.5),
    (mx.array([3], mx.int32), 3), (np.int64(7), 7), (np.array([[True]]), True), (mx.array(2**40), 2**40),
    (mx.array([1, -2], mx.bfloat16), [1.0, -2.0]), (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]), (mx.zeros((0,)), []),
    (np.array(["a", "b"]), ["a", "b"]), (np.str_("cat"), "cat"), ("cat", "cat"), (None, None), (3, 3), ([1, 2], [1, 2]),
])  # fmt: skip
def test_an_array_becomes_what_json_can_keep(given, wanted):
    found = plain(given)
    assert found == wanted and json.loads(json.dumps(found)) == wanted
    assert type(found) is type(wanted) and (not isinstance(found, list) or type(found[:1]) is type(wanted[:1]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_so(bad):
    for array in (mx.array(bad, mx.bfloat16), np.float32(bad), np.array([bad])):
        assert str(plain(array)) == str(bad) and str(one_number({"a": array}, "a")) == str(bad)
    assert str(plain(mx.array([bad, 1.0]))) == str([bad, 1.0])


def test_what_is_compared_must_be_one_number():
    assert one_number({"a": mx.array([0.25], mx.bfloat16)}, "a") == 0.25 and one_number({"a": np.array(3)}, "a") == 3.0
    for value, said in ((mx.zeros((2, 3)), r"an array of shape \(2, 3\)"), ("cat", "'cat'"), (None, "None")):
        with pytest.raises(UsageError, match=f"'a' must be one number to be compared, got {said}"):
            one_number({"a": value}, "a")
    with pytest.raises(UsageError, match="there is no 'b'"):
        one_number(Data({"a": 1}, "eval"), "b")


def test_what_is_logged_is_plain():
    logged = {}
    Data({}, "eval", "d", lambda **values: logged.update(values)).write_with_log("m", np.eye(2))
    assert logged == {"eval/m|d": [[1.0, 0.0], [0.0, 1.0]]}


def test_arrays_of_any_type_become_numpys():
    for dtype in (mx.bfloat16, mx.float16, mx.float32, mx.int32, mx.bool_):
        found = as_numpy(mx.array([[1, 0]]).astype(dtype))
        assert found.shape == (1, 2) and found.tolist() == [[1, 0]]
    assert as_numpy(mx.array([1.5], mx.bfloat16)).dtype == np.float32
    assert as_numpy(["a"]).tolist() == ["a"] and as_numpy(2.5).shape == ()
