"""What FastEstimator's users may leave out or give alone: one op, one trace, None; arguments in its order."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from dataloaders.datasets.rows import NumpyDataset
from dataloaders.digits import Digits
from dataloaders.ops.numpy_op import NumpyOp
from dataloaders.ops.values import Minmax
from dataloaders.pipeline import Pipeline
from ops.losses.regression import MeanSquaredError
from ops.model_op import ModelOp
from runtime.errors import UsageError
from runtime.op import ObjectiveOp, TensorOp, as_list
from tests.training.by_hand import Regression, assert_same, mlp, weights
from traces.trace import Trace
from training.build import build, save_model
from training.estimator import Estimator
from training.evaluate import Means
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


def test_a_trace_finds_the_system_it_knows_and_may_stop_the_training():
    seen = []

    class Stops(Trace):
        def on_batch_end(self, data):
            data["twice"] = 2
            seen.append((self.system.global_step, self.system.epoch_idx, self.system.total_epochs, data["twice"]))
            self.system.stop_training = self.system.global_step == 3

    estimator = estimator_of(None, Stops())
    estimator.epochs, estimator.total_steps = 2, 4
    assert estimator.fit().reason == "a trace set stop_training"
    assert seen == [(1, 1, 2, 2), (2, 1, 2, 2), (3, 2, 2, 2)]
    with pytest.raises(AttributeError):
        estimator.traces[0].system.stop = True  # a name that does nothing is not taken in silence


def test_a_network_transforms_a_batch_as_it_stands():
    model = build(lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm(3)), "adam")
    network = Network([ModelOp(model, "x", "y_pred"), MeanSquaredError(("y_pred", "y"), "mse"), UpdateOp(model, "mse")])
    before, x = weights(model), RNG.normal(size=(4, 2)).astype(np.float32)
    out = network.transform({"x": x, "name": np.array(["a"] * 4)})
    model.train(False)
    np.testing.assert_allclose(np.array(out["y_pred"]), np.array(model(mx.array(x))), rtol=1e-6)
    assert sorted(out) == ["x", "y_pred"]
    model.train(True)
    both = network.transform({"x": x, "y": np.zeros((4, 3), np.float32)}, mode="train")
    assert both["mse"].item() == pytest.approx(np.square(np.array(both["y_pred"])).mean(), rel=1e-5)
    assert abs(np.array(both["y_pred"]).mean()) < 1e-6  # normed by its own statistics, which then are put back
    assert_same(weights(model), before)
    assert model.training
    with pytest.raises(UsageError, match="misses x in mode infer"):
        network.transform({"y": x})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Pipeline(DATA, batch_size=4, ops=Negative("x", "x")), "got Negative .a TensorOp belongs to a Network"),
        (lambda: Pipeline(DATA, batch_size=4, ops=[nn.Linear(2, 2)]), "got Linear"),
        (lambda: Network(Minmax("x", "x")).transform({"x": np.ones(2)}), "Minmax is a NumpyOp, which belongs to a Pi"),
        (lambda: estimator_of(None, None).test(), "no data for mode 'test'"),
        (lambda: Network(Negative("x", "x")).name_of(nn.Linear(1, 1)), "no op of the network uses this Linear"),
        (lambda: Estimator(Pipeline(DATA, batch_size=4), Network([]), "2"), "epochs must be a whole number, .*'2'"),
        (lambda: Means().add("y_pred", mx.ones((2, 3)), np.ones(4)), "'y_pred' has shape .2, 3. in an evaluation"),
    ],
)  # fmt: skip
def test_what_stands_in_the_wrong_place_is_told(make, said):
    with pytest.raises(UsageError, match=said):
        make()


class Negative(TensorOp):
    """Minus its input."""

    def forward(self, data, state):
        return -data


def test_numbers_rows_and_arrays_are_averaged_over_real_rows():
    means = Means()
    means.add("image", mx.array([[1.0, 3.0], [50.0, 70.0]]), np.array([1.0, 0.0]))
    assert means.values() == {"image": 2.0}
    means = Means()
    means.add("one", 3.0, np.ones(2))
    means.add("one", 6.0, np.array([1.0, 0.0]))
    assert means.values() == {"one": 4.0}


def test_a_source_and_a_data_set_of_ones_own_stand_side_by_side():
    own = [{"x": np.zeros((8, 8, 1), np.float32), "label": np.int32(0)}] * 4
    assert Pipeline(own, Digits("eval"), batch_size=2).shape == (8, 8, 1)


def test_the_sample_that_fails_is_named():
    class Broken:
        def __len__(self):
            return 4

        def __getitem__(self, i):
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom") as caught:
        Pipeline(Broken(), batch_size=4).first("train")
    with pytest.raises(UsageError, match=r"list\[\d\] is a ndarray; needed: a dictionary"):
        Pipeline([np.zeros(2)] * 4, batch_size=4).fingerprint()
    assert caught.value.__notes__[0].startswith("in sample ") and caught.value.__notes__[0].endswith(" of Broken")


def test_skipped_updates_are_told_even_without_traces(capsys):
    estimator = estimator_of(Times("x", "x"), None)
    estimator.fit()
    assert "warning: 2 of 2 updates were skipped" in capsys.readouterr().out


class Times(NumpyOp):
    """Too large for a square."""

    def forward(self, data, state):
        return data * np.float32(1e30)
