"""What FastEstimator's users may leave out or give alone: one op, one trace, None; arguments in its order."""

import mlx.core as mx
import numpy as np
import pytest

from dataloaders.datasets.rows import NumpyDataset
from dataloaders.ops.values import Minmax
from dataloaders.pipeline import Pipeline
from runtime.op import ObjectiveOp, as_list
from tests.training.by_hand import Regression, assert_same, mlp, weights
from traces.trace import Trace
from training.build import build, save_model
from training.estimator import Estimator
from training.network import Network
from training.update import UpdateOp

RNG = np.random.default_rng(0)
DATA = NumpyDataset({name: RNG.normal(size=(8, 2)).astype(np.float32) for name in ("x", "y")})


class Counter(Trace):
    """Counts steps."""

    count = 0

    def on_batch_end(self, data):
        self.count += 1


def estimator_of(ops, traces):
    model = build(lambda: mlp(0), "adam")
    network = Network([ObjectiveOp(model, Regression()), UpdateOp(model)])
    return Estimator(Pipeline(DATA, batch_size=4, ops=ops), network, traces=traces)


def test_one_trace_and_one_op_need_no_list():
    trace = Counter()
    one = estimator_of(Minmax("x", "x"), trace)
    one.fit()
    many = estimator_of([Minmax("x", "x")], [])
    many.fit()
    plain = estimator_of(None, None)
    plain.fit()
    assert trace.count == 2
    assert_same(weights(one.network.models["model"]), weights(many.network.models["model"]))
    with pytest.raises(AssertionError):
        assert_same(weights(one.network.models["model"]), weights(plain.network.models["model"]))


def test_a_network_of_one_op():
    model = mlp(0)
    op = ObjectiveOp(model, Regression())
    assert Network(op).ops == [op] and list(Network(op).models) == ["model"]
    assert as_list(None) == [] and as_list((1, 2)) == [1, 2] and as_list(op) == [op]


def test_build_takes_its_arguments_in_fastestimators_order(tmp_path):
    model = mlp(1)
    made = build(lambda: mlp(0), "adam", save_model(model, tmp_path / "weights"), "critic")
    assert_same(weights(made), weights(model))
    assert list(Network(UpdateOp(made)).models) == ["critic"] and mx.array_equal(made(mx.ones(2)), model(mx.ones(2)))
