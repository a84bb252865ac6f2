"""Lower precision in whole trainings: LeNet beside float32, and the loss scale of fp16 over good and bad steps."""

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest

from dataloaders.pipeline import Pipeline
from dataloaders.source import Source
from models.lenet import LeNet
from ops.losses.cross_entropy import CrossEntropy
from ops.model_op import ModelOp
from tests.training.by_hand import KEY, Apply, assert_same, batches, mlp, weights
from traces.trace import Trace
from training import guard
from training.build import build
from training.estimator import Estimator
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp


class Stripes(Source):
    """64 noisy images (18, 18, 1) with stripes of a width that is their class (0 to 2); rows `bright` overflow fp16."""

    shape, classes = (18, 18, 1), 3

    def __init__(self, bright=()):
        rng = np.random.default_rng(0)
        self.label = rng.integers(3, size=64).astype(np.int32)
        waves = np.sin(np.arange(18)[None, :, None, None] * (self.label[:, None, None, None] + 1))
        self.x = (waves + 0.3 * rng.normal(size=(64, *self.shape))).astype(np.float32)
        for row in bright:
            self.x[row] *= 1e5  # more than fp16 has

    def __len__(self):
        return 64

    def take(self, indices, rng):
        return {"x": self.x[indices], "label": self.label[indices]}

    def fingerprint(self):
        return "stripes"


class Steps(Trace):
    """Notes loss, scale, steps skipped so far and the head's weights after every step."""

    def __init__(self):
        super().__init__(mode="train")
        self.losses, self.scales, self.skipped, self.heads = [], [], [], []

    def on_batch_end(self, data):
        self.losses.append(float(data["loss"]))
        self.skipped.append(int(data["skipped"]))
        state = self.estimator.train_step.state
        self.heads.append(np.array(state["models"]["model"].head.weight))
        self.scales.append(float(state["scaler"]["scale"]) if "scaler" in state else None)


class Noted(LeNet):
    """LeNet that notes the types it works in."""

    def __init__(self):
        super().__init__((18, 18, 1), classes=3, logits=True)
        self._types = set()

    def __call__(self, x):
        out = super().__call__(x)
        self._types |= {x.dtype, self.conv1.weight.dtype, self.head.weight.dtype, out.dtype}
        return out


def run(precision, epochs=4, bright=(), rate=3e-3):
    mx.random.seed(5)
    model = build(Noted, lambda: optim.Adam(rate, bias_correction=True))
    network = Network([ModelOp(model, "x", "y_pred"), CrossEntropy(("y_pred", "label"), "loss", from_logits=True),
                       UpdateOp(model, "loss")])  # fmt: skip
    note = Steps()
    trainer = Estimator(Pipeline(Stripes(bright), batch_size=16), network, epochs, [note], precision=precision)
    trainer.fit()
    return model, note, trainer


@pytest.mark.parametrize(("precision", "dtype", "tolerance"), [("bf16", mx.bfloat16, 0.05), ("fp16", mx.float16, 0.01)])
def test_lenet_learns_as_in_float32(precision, dtype, tolerance):
    wide, narrow = run("fp32"), run(precision)
    assert narrow[0]._types == {dtype} and wide[0]._types == {mx.float32}
    assert all(array.dtype == np.float32 for array in weights(narrow[0]).values())
    assert wide[1].losses[-1] < 0.5 * wide[1].losses[0] and narrow[1].skipped[-1] == 0
    np.testing.assert_allclose(narrow[1].losses, wide[1].losses, atol=tolerance)
    assert narrow[1].losses != wide[1].losses


def test_a_step_that_overflows_is_skipped_and_halves_the_scale_which_grows_again(monkeypatch):
    monkeypatch.setattr(guard, "GROW_AFTER", 3)
    epochs = 4
    _, note, trainer = run("fp16", epochs, bright=[7])
    assert run("fp32", epochs, bright=[7])[1].skipped[-1] == 0
    bad = np.diff([0, *note.skipped])
    assert bad.sum() == epochs and bad.reshape(epochs, -1).sum(axis=1).tolist() == [1] * epochs  # one batch an epoch
    scale, good = 2.0**15, 0
    for i, skipped in enumerate(bad):
        good = 0 if skipped else good + 1
        scale *= 0.5 if skipped else 2.0 if good == 3 else 1.0
        good %= 3
        assert note.scales[i] == scale
        if i:
            assert np.array_equal(note.heads[i], note.heads[i - 1]) == bool(skipped)
    assert len(set(note.scales)) > 2
    saved = trainer.state_arrays()
    assert float(saved["scaler.scale"]) == note.scales[-1] and int(saved["scaler.good"]) == good


@pytest.mark.parametrize(("scale", "moves"), [(1.0, False), (2.0**15, True)])
def test_gradients_too_small_for_fp16_come_through_by_the_scale(scale, moves):
    ends = []
    for precision in ("fp32", "fp16"):
        model = mlp()
        start = weights(model)
        loss = Apply("loss", lambda data, ctx, model: {"loss": 1e-7 * model(data["x"]).square().mean()}, model=model)
        step = TrainStep(Network([loss, UpdateOp(model, "loss", optim.SGD, 1e6)]), precision=precision)
        if precision == "fp16":
            step.state["scaler"]["scale"] = mx.array(scale)
        step(batches(1)[0], KEY)
        ends.append({path: new - start[path] for path, new in weights(model).items()})
    if moves:
        assert_same(ends[1], ends[0], atol=2e-4)
    else:
        assert not any(np.any(change) for change in ends[1].values())
    assert max(np.abs(change).max() for change in ends[0].values()) > 0.01
