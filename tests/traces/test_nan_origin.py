"""debug=nan: the run ends at the planted step, says where, and leaves a healthy run alone."""

import json
from types import SimpleNamespace

import mlx.core as mx
import pytest

import launcher
from ops.model_op import ModelOp
from runtime.errors import UsageError
from runtime.op import TensorOp
from scripts.compose import compose
from tests.traces.small import estimator
from traces.nan_origin import NaNOrigin


class Planted(TensorOp):
    """NaN in training step `at` (from 0) where the batch has a row of that id."""

    def __init__(self, at, row=None):
        super().__init__(["y", "id"], "y")
        self.at, self.row = at, row

    def forward(self, data, state):
        y, ids = data
        hit = mx.array(True) if self.row is None else (ids == self.row).any()
        return mx.where(hit & (state.step == self.at), float("nan"), y)


def run(at, workspace=None, row=None, **options):
    made = estimator([NaNOrigin()], ops=[Planted(at, row)], **options)
    made.workspace = workspace
    return made


@pytest.mark.parametrize("compile", [True, False])
def test_the_planted_step_and_op_with_its_batch(tmp_path, compile):
    said = []
    made = run(5, SimpleNamespace(folder=tmp_path, say=said.append), compile=compile)
    with pytest.raises(UsageError, match=r"step 6 isn't finite \(ce nan\). It begins in op 2 \(Planted\)"):
        made.fit()
    report = json.loads((tmp_path / "nan_origin.json").read_text())
    assert (
        report["step"] == 6 and report["losses"] == {"ce": "nan"} and report["origins"][0]["place"] == "op 2 (Planted)"
    )
    batch = mx.load(str(tmp_path / "nan_batch.safetensors"))
    batches = made.pipeline.batches("train", 5)
    known = next(batches)
    batches.close()
    assert set(batch) == {"key", *(f"batch.{name}" for name in known)}  # pyright: ignore
    assert all((mx.array(known[name]) == batch[f"batch.{name}"]).all().item() for name in known)  # pyright: ignore
    assert len(said) == 1


def test_the_micro_batch_that_has_it():
    probe = run(99, accumulate=2)
    first, second = (next(probe.pipeline.batches("train", place))["id"] for place in (4, 5))
    assert not set(first) & set(second)
    with pytest.raises(UsageError, match=r"step 3 isn't finite .*begins in op 2 \(Planted\)"):
        run(2, row=int(second[0]), accumulate=2, compile=False).fit()
    with pytest.raises(UsageError, match=r"step 3 isn't finite .*begins in op 2 \(Planted\)"):
        run(2, row=int(first[0]), accumulate=2, compile=False).fit()


def test_a_healthy_run_is_the_same_and_classes_are_put_back():
    before = (ModelOp.__call__, type(estimator().train_step).__call__)
    plain, watched = estimator(ops=[Planted(99)], compile=False), run(99, compile=False)
    plain.fit()
    watched.fit()
    arrays = watched.state_arrays()
    assert all((array == arrays[path]).all().item() for path, array in plain.state_arrays().items())
    assert (ModelOp.__call__, type(plain.train_step).__call__) == before


def test_a_loss_scale_that_falls_is_no_fault():
    made = estimator([NaNOrigin()], precision="fp16", epochs=2, compile=False)
    made.train_step.state["scaler"]["scale"] = mx.array(2.0**20)  # the first gradients overflow
    made.fit()
    assert 0 < made.train_step.state["skipped"].item() < 8
    with pytest.raises(UsageError, match="step 2 isn't finite"):
        run(1, precision="fp16", compile=False).fit()


def test_the_debug_overlay_names_a_module_of_the_model(tmp_path):
    overrides = ["run_name=t", "debug=nan", "max_steps=8", "device=cpu", "batch_size=16", "evaluation=none",
                 "optimizer.learning_rate=1e38", "optimizer.clip=null", "compile=false",
                 "trackio.enabled=false"]  # fmt: skip
    with pytest.raises(UsageError, match="isn't finite"):
        launcher.train(compose(overrides), tmp_path / "t", overrides)
    origin = json.loads((tmp_path / "t" / "nan_origin.json").read_text())["origins"][0]
    assert origin["part"] in ("weights", "forward") and origin["place"].startswith("model.")
