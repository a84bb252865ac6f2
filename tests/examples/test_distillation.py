"""Distillation: the loss against its formula, a teacher that doesn't move, a student that does."""

import mlx.core as mx
import numpy as np

from examples.distillation import Distillation, fastestimator_run, get_estimator
from models.lenet import LeNet
from runtime.slots import snapshot
from tests.examples.made import clothes, context, steps
from tests.training.by_hand import assert_same
from training.build import save_model


def arrays(model):
    return {path: np.array(leaf) for path, leaf in snapshot(model).items()}


def test_the_loss_is_the_tempered_divergence():
    rng = np.random.default_rng(0)
    ours, theirs = (rng.normal(size=(5, 4)).astype(np.float32) for _ in range(2))

    def softmax(x):
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

    p, q = softmax(theirs / 3.0), softmax(ours / 3.0)
    op = Distillation(("a", "b"), "kl", temperature=3.0)
    out = op({"a": mx.array(ours), "b": mx.array(theirs)}, context())
    np.testing.assert_allclose(np.array(out["kl"]), 9 * (p * np.log(p / q)).sum(-1).mean(), rtol=1e-5)


def test_the_student_follows_a_teacher_that_rests(tmp_path):
    root, file = clothes(tmp_path), save_model(LeNet(), tmp_path / "teacher")
    estimator = get_estimator(str(file), samples=40, share=1.0, batch_size=20, root=root)
    models = estimator.network.models
    teacher, student = arrays(models["teacher"]), arrays(models["student"])
    _, outs = steps(estimator, 60, ("y_teacher",))
    assert_same(arrays(models["teacher"]), teacher)
    assert all((arrays(models["student"])[path] != student[path]).any() for path in student)
    assert outs[-1]["loss"].item() < 0.3 * outs[0]["loss"].item()
    assert "teacher" not in " ".join(estimator.train_step.leaves["loss"])
    estimator.traces.clear()
    values = estimator.evaluate("eval")
    assert "eval/ce" in values and "eval/kl" not in values  # the teacher sits out of evaluation


def test_without_a_teacher_the_student_learns_from_labels(tmp_path):
    estimator = get_estimator(samples=40, batch_size=20, root=clothes(tmp_path))
    assert list(estimator.network.models) == ["student"]
    _, outs = steps(estimator, 30)
    assert outs[-1]["ce"].item() < 0.5 * outs[0]["ce"].item()


def test_the_comparison_starts_both_from_equal_weights(tmp_path, capsys):
    root, file = clothes(tmp_path), save_model(LeNet(), tmp_path / "teacher")
    fastestimator_run(str(file), samples=50, share=0.0, epochs=1, seeds=1, root=root)
    words = capsys.readouterr().out.splitlines()[-1].replace(",", "").split()
    assert words[:3] == ["seed", "0:", "distilled"] and words[3] == words[5]  # a share of 0 is no distillation
