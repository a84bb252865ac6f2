"""Training steps whose models compute their batches in parts at once: the same steps, to rounding, in either part."""

import mlx.core as mx
import numpy as np
import pytest

from losses.flow_matching import FlowMatching
from losses.meanflow import MeanFlow
from models.lenet import LeNet
from models.mlp import MLP
from ops.losses.cross_entropy import CrossEntropy
from ops.model_op import ModelOp
from runtime import streams
from runtime.op import ObjectiveOp
from runtime.slots import snapshot, write
from runtime.world import World
from tests.training.by_hand import KEY, Adam, primitives_of
from training.forward import ForwardStep, judged_arrays
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp

RNG = np.random.default_rng(0)
IMAGES = [
    {"x": mx.array(RNG.random((6, 18, 18, 1)).astype(np.float32)), "y": mx.array(RNG.integers(0, 10, 6))}
    for _ in range(4)
]
POINTS = {"x": mx.array(RNG.normal(size=(9, 2)).astype(np.float32))}


@pytest.fixture(autouse=True)
def every_batch_is_parted(monkeypatch):
    monkeypatch.setattr(streams, "LEAST", 0)
    monkeypatch.setattr(streams, "REUSE", 0)
    monkeypatch.setattr(streams, "parts", lambda: 2)
    with mx.stream(mx.cpu):
        yield


@pytest.fixture
def lengths(monkeypatch):
    """The rows of every call of LeNet and the MLP."""
    seen = []
    for kind in (LeNet, MLP):
        call = kind.__call__

        def noted(self, x, *args, call=call, **kwargs):
            seen.append(len(x))
            return call(self, x, *args, **kwargs)

        monkeypatch.setattr(kind, "__call__", noted)
    return seen


def classifier():
    mx.random.seed(0)
    model = LeNet((18, 18, 1))
    ops = [ModelOp(model, "x", "y_pred"), CrossEntropy(("y_pred", "y"), "ce"), UpdateOp(model, "ce", Adam)]
    return Network(ops)


def trained(step, batches):
    for batch in batches:
        step(batch, KEY)
    mx.eval(step.state)
    return {path: np.array(array) for path, array in snapshot(step.state).items()}


@pytest.mark.parametrize("compiled", [True, False])
def test_steps_are_those_of_the_whole_batch_to_rounding(compiled, monkeypatch):
    found = trained(TrainStep(classifier(), compile=compiled), IMAGES)
    monkeypatch.setattr(streams, "parts", lambda: 1)
    for path, array in trained(TrainStep(classifier(), compile=compiled), IMAGES).items():
        # Adam turns rounding of a gradient near 0 into a share of a step of 1e-3
        np.testing.assert_allclose(found[path], array, rtol=1e-3, atol=1e-4, err_msg=path)


def test_a_run_that_stops_and_goes_on_ends_in_the_same_bits():
    whole = trained(TrainStep(classifier()), IMAGES)
    kept = trained(TrainStep(classifier()), IMAGES[:2])
    later = TrainStep(classifier())
    later.start(IMAGES[0])
    write(later.state, {path: mx.array(array) for path, array in kept.items()})
    for path, array in trained(later, IMAGES[2:]).items():
        np.testing.assert_array_equal(array, whole[path], err_msg=path)


def test_each_part_has_one_forward_and_one_backward_pass(lengths, monkeypatch):
    def products():
        names = primitives_of(TrainStep(classifier()), IMAGES[0], ["y_pred"])
        return sum(name.startswith(("Matmul", "AddMM", "Convolution")) for name in names)

    parted = products()
    assert lengths == [6, 3, 3]  # the first only counts the work
    monkeypatch.setattr(streams, "parts", lambda: 1)
    assert parted == 2 * products() > 0


def test_evaluation_in_parts(lengths, monkeypatch):
    network = classifier()
    batch = {name: array[:5] for name, array in IMAGES[0].items()}
    found = ForwardStep(network, "eval")(judged_arrays(network), batch, KEY, ["y_pred", "ce"])
    assert lengths == [5, 2, 3] and found["y_pred"].shape == (5, 10)
    monkeypatch.setattr(streams, "parts", lambda: 1)
    wanted = ForwardStep(network, "eval")(judged_arrays(network), batch, KEY, ["y_pred", "ce"])
    for name, array in wanted.items():
        np.testing.assert_allclose(np.array(found[name]), np.array(array), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objective, rows", [(FlowMatching, [9]), (lambda: MeanFlow(jvp_share=0.5), [4, 5])])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_objectives_call_their_models_in_parts(objective, rows, precision, lengths, monkeypatch):
    def loss():
        mx.random.seed(0)
        model = MLP([2], hidden=16, depth=2)
        network = Network([ObjectiveOp(model, objective()), UpdateOp(model, "loss", Adam)])
        return TrainStep(network, precision=precision)(POINTS, KEY)["loss"].item()

    found = loss()
    assert {count // 2 for count in rows} | {-(-count // 2) for count in rows} <= set(lengths)
    lengths.clear()
    monkeypatch.setattr(streams, "parts", lambda: 1)
    assert found == pytest.approx(loss(), rel=1e-5 if precision == "fp32" else 1e-2)
    assert not {count // 2 for count in rows} & set(lengths) - set(rows)


def test_processes_that_train_together_share_the_cores():
    step = TrainStep(classifier())
    assert isinstance(step._wrap(step.network.models["model"]), streams.Divided)
    step.world = World(size=2)
    assert step._wrap(step.network.models["model"]) is step.network.models["model"]
