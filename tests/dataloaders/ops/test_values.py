import numpy as np
import pytest

from dataloaders.ops.values import (
    Binarize,
    ChannelTranspose,
    ExpandDims,
    Hadamard,
    LambdaOp,
    Minmax,
    Onehot,
    Reshape,
    ToArray,
)
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
    assert ChannelTranspose("x", "y")({"x": np.zeros((4, 5, 3))}, state())["y"].shape == (3, 4, 5)
    found = ToArray("x", "y", dtype="float16")({"x": [1, 2]}, state())["y"]
    assert found.tolist() == [1, 2] and found.dtype == np.float16
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


def test_codes_of_labels():
    codes = Hadamard("y", "y", 4)({"y": np.arange(4)}, state())["y"]
    assert codes.tolist() == [[-1, 1, 1, 1], [1, -1, 1, -1], [-1, 1, -1, -1], [1, -1, -1, 1]]
    assert np.array_equal(Hadamard("y", "y", 4)({"y": np.array([2])}, state())["y"], codes[2])
    batch = Hadamard(["y"], ["c"], 3, code_length=8).forward_batch([np.array([2, 0])], state())[0]
    assert batch.shape == (2, 8) and batch.dtype == np.float32
    with pytest.raises(UsageError, match=r"labels in 0..3, got 4..4"):
        Hadamard("y", "y", 4)({"y": 4}, state())
