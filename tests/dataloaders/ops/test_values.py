import numpy as np
import pytest

from dataloaders.ops.sometimes import OneOf, Sometimes
from dataloaders.ops.values import Binarize, ExpandDims, LambdaOp, Minmax, Onehot, Reshape
from runtime.errors import UsageError


def state(seed: int = 0) -> dict:
    return {"mode": "train", "epoch": 0, "ds_id": "", "rng": np.random.default_rng(seed)}


def test_values_and_shapes():
    x = np.array([[2, 4], [6, 10]], np.uint8)
    assert np.allclose(Minmax("x", "x", new_min=-1.0)({"x": x}, state())["x"], [[-1, -0.5], [0, 1]])
    assert np.array_equal(Minmax("x", "x")({"x": np.full(3, 7)}, state())["x"], [0, 0, 0])
    assert np.array_equal(Binarize(6, ["x"], ["y"])({"x": x}, state())["y"], [[0, 0], [1, 1]])
    assert Reshape((-1,), "x", "x")({"x": x}, state())["x"].tolist() == [2, 4, 6, 10]
    assert ExpandDims("x", "x")({"x": x}, state())["x"].shape == (2, 2, 1)
    assert LambdaOp(lambda a, b: a + b, ["x", "x"], "y")({"x": x}, state())["y"].tolist() == [[4, 8], [12, 20]]
    batch = Minmax("x", "x").forward_batch(np.stack([x, x * 2]), state())
    assert np.allclose(batch[0], batch[1]) and batch.dtype == np.float32


def test_one_hot_labels():
    for label in (2, np.int64(2), np.array([2])):
        assert Onehot("y", "y", 3)({"y": label}, state())["y"].tolist() == [0, 0, 1]
    smooth = Onehot("y", "y", 4, label_smoothing=0.2)({"y": 1}, state())["y"]
    assert np.allclose(smooth, [0.05, 0.85, 0.05, 0.05])
    for label in (3, -1, 0.5):
        with pytest.raises(UsageError, match="Onehot needs"):
            Onehot("y", "y", 3)({"y": label}, state())


def test_random_choices_come_as_often_as_asked():
    one, two = LambdaOp(lambda x: x + 1, "x", "x"), LambdaOp(lambda x: x + 2, "x", "x")
    given = state()
    found = [int(Sometimes(one, 0.3)({"x": 0}, given)["x"]) for _ in range(4000)]
    assert abs(np.mean(found) - 0.3) < 0.04
    found = [int(OneOf(one, two, probs=[0.25, 0.75])({"x": 0}, given)["x"]) for _ in range(4000)]
    assert set(found) == {1, 2} and abs(np.mean(found) - 1.75) < 0.04
    with pytest.raises(UsageError, match="got 2 kinds"):
        OneOf(one, LambdaOp(abs, "x", "y"))
    with pytest.raises(UsageError, match="sum 1"):
        OneOf(one, two, probs=[0.5, 0.6])
