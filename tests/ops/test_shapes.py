"""Small ops on arrays, each against NumPy."""

import mlx.core as mx
import numpy as np
import pytest

from ops.tensor.shapes import Argmax, Average, Delete, ExpandDims, LambdaOp, Permute, Reshape, Squeeze
from runtime.errors import UsageError
from runtime.op import Context
from tests.training.by_hand import KEY
from training.network import Network

X = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
CASES = [
    (Argmax("x", "y"), X.argmax(-1)),
    (Argmax(["x"], ["y"], axis=1), X.argmax(1)),
    (Permute("x", "y", (0, 2, 1)), X.transpose(0, 2, 1)),
    (Reshape("x", "y", (-1, 12)), X.reshape(2, 12)),
    (ExpandDims("x", "y"), X[..., None]),
    (ExpandDims("x", "y", axis=1), X[:, None]),
    (Squeeze("one", "y"), X[:1, :, 0]),
    (Squeeze("one", "y", axis=0), X[0, :, :1]),
    (Average(["x", "z"], "y"), (X + 1) / 2),
    (LambdaOp(lambda x, z: x - 2 * z, ["x", "z"], "y"), X - 2),
]


def out(op):
    zero = mx.array(0, mx.int32)
    return Network([op]).forward(
        {"x": mx.array(X), "z": mx.ones(X.shape), "one": mx.array(X[:1, :, :1])}, Context("train", KEY, zero, zero)
    )


@pytest.mark.parametrize(("op", "wanted"), CASES)
def test_values(op, wanted):
    np.testing.assert_allclose(out(op)["y"], wanted, rtol=1e-6)


def test_delete_takes_keys_out_and_a_wrong_count_is_refused():
    assert set(out(Delete("x"))) == {"z", "one"}
    with pytest.raises(UsageError, match="Argmax needs as many outputs as inputs, got 2 and 1"):
        Argmax(["x", "z"], "y")
    with pytest.raises(UsageError, match=r"length 1, got axis=1 of shape \(2, 3, 4\)"):
        out(Squeeze("x", "y", axis=1))
