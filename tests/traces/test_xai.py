"""Saliency, class activation maps and trackers against closed forms and NumPy, and in real runs; savers of weights."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from runtime.errors import UsageError
from runtime.op import TensorOp
from runtime.slots import snapshot
from tests.traces.small import Net, estimator
from traces.io.image_saver import ImageSaver
from traces.io.model_saver import BestModelSaver, ModelSaver
from traces.trace import Trace
from traces.xai.attribution import integrated, saliency, smooth
from traces.xai.cam import EigenCAM, GradCAM, resized
from traces.xai.saliency import Saliency
from traces.xai.trackers import InstanceTracker, LabelTracker
from training.build import load_model

RNG = np.random.default_rng(0)


def test_saliency_of_a_linear_model_is_its_weights():
    model, x, chosen = Net(), mx.array(RNG.normal(size=(2, 4, 4, 1)).astype(np.float32)), mx.array([2, 0])
    rows = np.array(model.layer.weight)[[2, 0]].reshape(2, 4, 4, 1)
    key = mx.random.key(1)
    np.testing.assert_allclose(saliency(model, x, chosen), rows, rtol=1e-6)
    np.testing.assert_allclose(smooth(model, x, chosen, key, 4), rows, rtol=1e-5)
    np.testing.assert_allclose(smooth(model, x, chosen, key, 4, squared=True), rows**2, rtol=1e-5)
    np.testing.assert_allclose(integrated(model, x, chosen, x - 1, 3), rows, rtol=1e-5)


def test_integrated_gradients_are_complete():
    net = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))
    x, base = (mx.array(RNG.normal(size=(2, 16)).astype(np.float32)) for _ in range(2))
    chosen = mx.array([1, 2])
    total = integrated(net, x, chosen, base, 200).sum(1)
    want = mx.take_along_axis(net(x) - net(base), chosen[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(total, want, atol=2e-4)
    assert np.abs(np.array(saliency(net, x, chosen) * (x - base)).sum(1) - np.array(want)).max() > 1e-2


def test_the_formula_of_gradcam():
    grads, activations = RNG.normal(size=(2, 3, 5, 4)), RNG.normal(size=(2, 3, 5, 4))
    trace = GradCAM("x", "g", "a")
    (found,) = trace.maps(grads, activations).values()
    for b in range(2):
        weights = [sum(grads[b, :, :, k].reshape(-1)) / 15 for k in range(4)]
        want = sum(weights[k] * activations[b, :, :, k] for k in range(4))
        np.testing.assert_allclose(found[b], np.where(want > 0, want, 0), atol=1e-12)
    (plain,) = GradCAM("x", "g").maps(grads).values()
    np.testing.assert_allclose(plain, np.maximum(grads.mean(-1), 0), atol=1e-12)


def test_eigencam_is_the_first_right_singular_vectors_projection():
    activations = RNG.normal(size=(2, 3, 5, 4))
    found = EigenCAM("x", "a", n_components=2).maps(activations)
    for b in range(2):
        flat = activations[b].reshape(15, 4) - activations[b].reshape(15, 4).mean(0)
        vectors = np.linalg.eigh(flat.T @ flat)[1][:, ::-1]
        for i in range(2):
            one = (flat @ vectors[:, i]).reshape(3, 5)
            one *= np.sign(one.reshape(-1)[np.abs(one).argmax()])
            np.testing.assert_allclose(found[f"Component {i}"][b], np.maximum(one, 0), atol=1e-10)
    assert len(EigenCAM("x", "a", n_components=0.9999).maps(activations)) == 4


def test_resizing_is_linear():
    np.testing.assert_allclose(resized(np.array([[[0.0, 1.0]]]), 1, 4)[0, 0], [0, 0.25, 0.75, 1])
    assert resized(np.ones((1, 2, 3)), 5, 7).shape == (1, 5, 7)


class Features(TensorOp):
    """Two channels of activations, and their gradients of a score that is hand-made: 3 a0 - a1."""

    def forward(self, data, state):
        activations = mx.concatenate([data, 2 * data], -1)
        return activations, mx.zeros_like(activations) + mx.array([3.0, -1.0])


class Seen(Trace):
    def __init__(self, *keys):
        super().__init__(mode="eval")
        self.keys, self.found = keys, []

    def on_epoch_end(self, data):
        self.found.append({key: data[key] for key in self.keys})


def test_maps_in_a_real_run(tmp_path):
    seen = Seen("gradcam", "eigencam", "saliency")

    def traces(model):
        keys = ["gradcam", "eigencam", "saliency"]
        shown = Saliency(model, "x", class_key="label", samples=9, smoothing=2, integrating=2)
        names = {"a": 0, "b": 1, "c": 2}
        return [GradCAM("x", "g", "a", labels="label", preds="y", label_mapping=names, n_samples=3),
                EigenCAM("x", "a", 1), shown, seen, ImageSaver(keys, tmp_path)]  # fmt: skip

    run = estimator(traces, ops=[Features("x", ("a", "g"), mode="!train")])
    run.fit()
    x = run.pipeline.sources["eval"].x[:3, ..., 0]
    truth, guess, image, heat = seen.found[0]["gradcam"]
    want = np.maximum(x, 0)  # 3 a0 - a1 = x
    np.testing.assert_allclose(heat.heat, want / want.max((1, 2), keepdims=True), atol=1e-6)
    assert set(truth.text) <= {"a", "b", "c"} and len(guess.text) == len(image.images) == 3
    assert [panel.title for panel in seen.found[1]["saliency"]] == ["label", "pred", "x", "gradient", "smooth",
                                                                    "integrated"]  # fmt: skip
    assert len(seen.found[1]["saliency"][3].heat) == 9
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"{key}_eval_epoch_{n}.png" for key in ("gradcam", "eigencam", "saliency") for n in (1, 2)}


class Charts(Trace):
    def on_end(self, data):
        self.found = {key: data[key] for key in data}


def test_trackers_follow_samples_and_labels():
    charts = Charts(mode="eval")
    label, instance = LabelTracker("label", "each", {"one": 1}), InstanceTracker("id", "each", 1, 2, [7])
    run = estimator([label, instance, charts])
    run.fit()
    chart = charts.found["each_by_label"]
    assert list(chart.series) == ["one"]
    steps, mean, low, high = chart.series["one"]
    assert steps == (4, 8) and all(l < m < h for l, m, h in zip(low, mean, high, strict=True))  # noqa: E741
    lines = charts.found["each_by_id"].series
    final = {name: rows[-1][1] for name, rows in instance.history.items()}
    ranked = sorted(final, key=lambda name: final[name])
    assert len(final) == 10 and set(lines) == {*ranked[:2], ranked[-1], "7"}
    assert np.mean(list(final.values())) == pytest.approx(run.summary.latest["eval/ce"], rel=1e-5)
    own = run.pipeline.sources["eval"].label
    assert mean[-1] == pytest.approx(np.mean([final[str(i)] for i in range(10) if own[i] == 1]), rel=1e-5)
    other = LabelTracker("label", "each")
    other.load_state_dict(label.state_dict())
    assert other.history == label.history


class Script(Trace):
    """A metric after a plan, one value an evaluation."""

    def __init__(self, values):
        super().__init__(outputs="score", mode="eval")
        self.values = values

    def on_epoch_end(self, data):
        data.write_with_log("score", self.values[self.estimator.epoch - 1])


def weights(model):
    return {path: np.array(leaf) for path, leaf in snapshot(model).items()}


def test_models_are_saved_every_so_often(tmp_path):
    run = estimator(
        lambda m: [ModelSaver(m, tmp_path / "a", 2), ModelSaver(m, tmp_path / "b", "3s", 2, "net")], epochs=4
    )
    run.fit()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "model_epoch_2.safetensors",
        "model_epoch_4.safetensors",
    ]
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["net_epoch_3.safetensors", "net_step_15.safetensors"]
    fresh = Net()
    load_model(fresh, tmp_path / "a" / "model_epoch_4.safetensors")
    for name, array in weights(run.network.models["model"]).items():
        np.testing.assert_array_equal(weights(fresh)[name], array)
    with pytest.raises(UsageError, match="max_to_keep"):
        ModelSaver(fresh, tmp_path, max_to_keep=-1)


@pytest.mark.parametrize(
    ("how", "values", "best"), [("max", [0.1, float("nan"), 0.9, 0.5], 3), ("min", [5, 3, 4, 6], 2)]
)
def test_the_best_model_is_that_of_its_own_epoch(tmp_path, how, values, best):
    at_best = {}

    class Keep(Trace):
        def on_epoch_end(self, data):
            if self.estimator.epoch == best:
                at_best.update(weights(self.estimator.network.models["model"]))

    def traces(model):
        saver = BestModelSaver(model, tmp_path, "score", how, load_best_final=True)
        return [Script(values), saver, Keep(mode="eval")]

    run = estimator(traces, epochs=4)
    run.fit()
    (path,) = tmp_path.iterdir()
    assert path.name == "model_best_score.safetensors"
    for name, array in weights(run.network.models["model"]).items():
        np.testing.assert_array_equal(array, at_best[name])
    assert run.summary.latest["eval/since_best_score"] == 4 - best
    assert run.summary.latest[f"eval/{how}_score"] == values[best - 1]


def test_the_loss_is_the_default_metric_and_the_state_is_kept(tmp_path):
    run = estimator(lambda m: [BestModelSaver(m, tmp_path)], epochs=3)
    run.fit()
    losses = [row["eval/ce"] for row in run.summary.history]
    assert run.summary.latest["eval/min_ce"] == min(losses) and (tmp_path / "model_best_ce.safetensors").exists()
    again = BestModelSaver(Net(), None)
    again.load_state_dict(run.traces[0].state_dict())
    assert again.best.value == min(losses) and again.best.wait == run.traces[0].best.wait
