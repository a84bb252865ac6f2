"""Networks of ops from a config: the classes of examples/, composed, resumed, evaluated and refused."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map
from omegaconf import OmegaConf

import launcher
from examples.fashion_mnist_lenet import get_estimator
from runtime.errors import UsageError
from runtime.slots import snapshot
from scripts import sample, search
from scripts.compose import compose
from tests.test_launcher import TINY, idx_file
from training import checkpoint
from training.experiment import assemble, evaluate_run, load_run
from training.tracking import repeatable

LENET = ["experiment=fashion_mnist_lenet", "traces.metrics.every=1", "dataloaders.batch_size=5"]
TWO = """
models:
  a: {_target_: models.lenet.LeNet}
  b: {_target_: models.lenet.LeNet, logits: true}
ops:
  - {_target_: ops.model_op.ModelOp, model: a, inputs: x, outputs: p}
  - {_target_: ops.model_op.ModelOp, model: b, inputs: x, outputs: q}
  - {_target_: ops.losses.cross_entropy.CrossEntropy, inputs: [p, y], outputs: one}
  - {_target_: ops.losses.cross_entropy.CrossEntropy, inputs: [q, y], outputs: two, from_logits: true}
  - {_target_: training.update.UpdateOp, model: a, loss_name: one, optimizer: adam, ema: [0.9]}
  - {_target_: training.update.UpdateOp, model: b, loss_name: two, optimizer: sgd, learning_rate: 0.5}
"""


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """Random images in data/fashion_mnist, in the folder the test runs in."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("t10k", 12)):
        images = rng.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        idx_file(Path(f"data/fashion_mnist/{part}-images-idx3-ubyte.gz"), images)
        idx_file(Path(f"data/fashion_mnist/{part}-labels-idx1-ubyte.gz"), np.arange(count, dtype=np.uint8) % 10)
    return tmp_path


def train(folder, *overrides):
    overrides = [*TINY, *overrides]
    return launcher.train(compose(overrides), folder, overrides)


def final(folder):
    return {name: np.array(array) for name, array in checkpoint.load(checkpoint.find(folder))[0].items()}


def rows(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [repeatable(row) for row in found]


def test_the_command_line_and_the_example_end_with_the_same_weights(fashion):
    """Two epochs of four steps, so that the rate's cosine is that of eight steps in both."""
    summary = train(fashion / "r", *LENET, "max_steps=null", "epochs=2", "traces.rate.lr_fn.cycle_length=8", "seed=3",
                    "compile=true")  # fmt: skip
    estimator = get_estimator(epochs=2, batch_size=5, log_steps=0, save_dir=str(fashion / "best"), seed=3)
    estimator.fit()
    ours = final(fashion / "r")
    arrays = snapshot(estimator.network.models)
    assert summary.steps == estimator.step == 8 and len(arrays) == 10
    for path, array in arrays.items():
        np.testing.assert_array_equal(ours[f"models.{path}"], np.array(array), err_msg=path)
    other = get_estimator(epochs=2, batch_size=5, seed=4).network.models
    assert not np.allclose(
        ours["models.model.conv1.weight"], np.array(snapshot(other)["model.conv1.weight"]), atol=0.01
    )


def test_a_resumed_network_is_the_uninterrupted_one_bit_for_bit(fashion):
    ema = "optimizer.ema=[0.9]"
    told = [*LENET, ema, "max_steps=6", "eval_every=2s", "save_every=1s", "traces.checkpoints.keep_best=2"]
    train(fashion / "whole", *told)
    train(fashion / "parts", *told, "max_steps=3")
    train(fashion / "parts", *told, "resume=true")
    one, other = final(fashion / "whole"), final(fashion / "parts")
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert rows(fashion / "whole") == rows(fashion / "parts")
    accuracies = [row["eval/accuracy"] for row in rows(fashion / "parts") if "eval/accuracy" in row]
    assert len(accuracies) == 3 and len(list(fashion.glob("parts/checkpoints/best_*"))) == 2


def test_a_checkpoint_is_evaluated_and_opened_from_the_file_alone(fashion, capsys):
    summary = train(fashion / "r", *LENET, "optimizer.ema=[0.5]", "max_steps=4", "eval_every=4s")
    values, _ = evaluate_run(fashion / "r")
    assert set(values) == {f"{mode}/{name}" for mode in ("eval", "test") for name in ("loss", "accuracy")}
    for name in ("eval/loss", "eval/accuracy"):
        assert values[name] == pytest.approx(summary.latest[name], rel=1e-6)
    run: Any = load_run(fashion / "r")
    images, labels = (run.pipeline.sources["test"][key] for key in ("x", "y"))
    assert len(labels) == 6  # every second of 12
    found = np.array(run.model(mx.array(images / np.float32(255)))).argmax(1)
    assert values["test/accuracy"] == pytest.approx((found == labels).mean())
    plain: Any = load_run(fashion / "r", ema=False)
    averaged = final(fashion / "r")["ops.2.ema.0.5.head.bias"]
    np.testing.assert_array_equal(np.array(run.model.head.bias), averaged)
    assert not np.array_equal(np.array(plain.model.head.bias), averaged)
    assert launcher.main([f"eval_checkpoint={fashion / 'r'}", "device=cpu"]) == 0
    assert "test/accuracy" in capsys.readouterr().out
    assert sample.main([f"checkpoint={fashion / 'r'}", "device=cpu"]) == 2
    assert "no samples" in capsys.readouterr().err


def test_several_models_are_trained_each_by_its_own_update_and_loss(fashion):
    told = [*TINY, "experiment=fashion_mnist_lenet", "model=null", "dataloaders.batch_size=5", "~traces.rate"]
    config = compose([*told, "traces.metrics.every=1"])
    config["network"] = OmegaConf.create(TWO)
    summary = launcher.train(config, fashion / "r")
    end = final(fashion / "r")
    assert {"train/one", "train/two", "train/learning_rate/a", "train/learning_rate/b"} <= set(summary.latest)
    by_hand = assemble(config)
    models: Any = by_hand.network.models
    a, b = models["a"], models["b"]
    assert list(models) == ["a", "b"]
    batches = by_hand.pipeline.batches("train")
    for _ in range(2):  # b by plain gradient descent on its own loss
        batch = {key: mx.array(value) for key, value in next(batches).items()}

        def loss(weights, batch=batch):
            b.update(weights)
            logits = b(batch["x"])
            return (mx.logsumexp(logits, -1) - mx.take_along_axis(logits, batch["y"][:, None], 1)[:, 0]).mean()

        weights = b.trainable_parameters()
        b.update(tree_map(lambda w, g: w - 0.5 * g, weights, mx.grad(loss)(weights)))
    batches.close()
    for path, array in snapshot(b).items():
        np.testing.assert_allclose(end[f"models.b.{path}"], np.array(array), atol=1e-6, err_msg=path)
    assert not np.allclose(end["models.a.head.bias"], np.array(a.head.bias), atol=1e-4)
    run: Any = load_run(fashion / "r")
    plain: Any = load_run(fashion / "r", ema=False)
    assert list(run.models) == ["a", "b"] and run.model is run.models["a"]
    np.testing.assert_array_equal(np.array(run.model.head.bias), end["ops.4.ema.0.9.head.bias"])
    np.testing.assert_array_equal(np.array(plain.model.head.bias), end["models.a.head.bias"])
    by_hand.start_from(str(fashion / "r"))
    np.testing.assert_array_equal(np.array(a.head.bias), end["ops.4.ema.0.9.head.bias"])
    np.testing.assert_array_equal(np.array(b.head.bias), end["models.b.head.bias"])


def test_an_option_of_the_model_group_serves_under_any_name(fashion, tmp_path):
    overrides = [*TINY, "experiment=fashion_mnist_lenet", "model=null", "+model@network.models.student=lenet",
                 "network.models.student.logits=false", "network.ops.forward.model=student",
                 "optimizer.model=student", "traces.rate.model=student", "batch_size=5"]  # fmt: skip
    config = compose(overrides)
    assert config.model == {"logits": False} and config.network.models.student._target_ == "models.lenet.LeNet"
    assert launcher.train(config, tmp_path / "r", overrides).steps == 2
    assert "models.student.conv1.weight" in final(tmp_path / "r")


def test_an_overlay_may_change_traces_that_are_not_there(fashion, capsys):
    told = [
        "run_name=t",
        "experiment=fashion_mnist_lenet",
        "debug=profile",
        "max_steps=13",
        "batch_size=5",
        "device=cpu",
    ]
    assert {"checkpoints", "rate"} <= set(compose(told).traces) and "_target_" not in compose(told).traces.checkpoints
    assert launcher.main(told) == 0
    assert "step_ms_median" in capsys.readouterr().out


def test_a_search_goes_over_an_ops_argument_by_a_metric(fashion):
    sweeps = ["network.ops.loss.label_smoothing=0.0,0.9", "traces.rate.lr_fn.init_lr=1e-2"]
    told = [*TINY, *LENET, *sweeps, "eval_every=2s", "method=grid", "metric=eval/accuracy", "mode=max"]
    assert search.main(told) == 0
    done = json.loads((fashion / "outputs/t/search.json").read_text())["search_summary"]
    assert [trial["param"]["network.ops.loss.label_smoothing"] for trial in done] == [0.0, 0.9]
    assert all(0 <= trial["result"]["eval/accuracy"] <= 1 for trial in done)
    assert done[0]["result"]["eval/loss"] != done[1]["result"]["eval/loss"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["network.ops.loss.label_smothing=0.1"], "in network.ops.loss; nearest: label_smoothing"),
        (["+network.ops.loss.label_smothing=0.1"], "takes no argument 'label_smothing'; nearest of what it takes: lab"),
        (["network.ops.loss.label_smoothing=high"], "label_smoothing must be float, got 'high'"),
        (["network.ops.forward.model=modle"], "there is no model 'modle'; the models are model"),
        (["traces.rate.model=modle"], "there is no model 'modle'"),
        (["network.ops.forward._target_=ops.model_op.ModleOp"], "nearest: ModelOp"),
        (["network.opps.loss=null"], "in network; nearest: ops"),
        (["+network.opps={}"], "network has no key 'opps'; nearest: ops"),
        (["+network.models.spare={_target_: models.lenet.LeNet}"], "no op of network uses the model 'spare'"),
        (["model=null"], "there is no model; needed: model=NAME"),
        (["loss=flow_matching"], "take loss=... out"),
        (["+network.ops.odd={a: 1}"], "got {'a': 1}; has it a _target_?"),
        (["~network.ops.forward"], "y_pred"),
        (["network.ops.loss.inputs=[y_pred,label]"], "CrossEntropy misses label in mode train, epoch 1; the data has"),
        (["+network.metrics.rate=${network.metrics.accuracy}"], "'rate' is a name in network.metrics and in traces"),
        (["model=mlp"], "MLP takes no argument 'logits'"),
    ],
    ids=str,
)
def test_mistakes_cost_one_sentence_and_exit_status_2(overrides, said, fashion, capsys):
    assert launcher.main([*TINY, "experiment=fashion_mnist_lenet", "batch_size=5", *overrides]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error, error


def test_a_key_below_a_group_that_is_null_is_explained():
    with pytest.raises(UsageError, match="no key 'ops' in network, which has none"):
        compose(["run_name=t", "network.ops.loss=null"])


def test_a_group_can_be_null(fashion):
    with pytest.raises(UsageError, match="loss is null; needed: loss=NAME, or network=NAME"):
        assemble(compose([*TINY, "loss=null"]))
    assert compose([*TINY, "debug=null", "network=null", "model=null"]).model is None
    train(fashion / "r", *LENET, "evaluation=null")
    assert "eval/accuracy" in evaluate_run(fashion / "r")[0]
