"""Curves of many runs in one picture: all told apart, all named."""

import json

import numpy as np
import pytest

from runtime.errors import UsageError
from visualizers import logs


@pytest.mark.parametrize("label", ["{}", "{}: a learning rate and more"])
def test_twenty_runs_have_colours_of_their_own_and_a_legend_within_the_picture(label, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(logs, "save_figure", lambda figure, path: kept.append(figure))
    steps = np.arange(3)
    logs.compare_runs({label.format(n): {"loss": (steps, steps * n)} for n in range(20)}, tmp_path / "a.png", ["loss"])
    figure = kept[0]
    figure.canvas.draw()
    lines = figure.axes[0].get_lines()
    assert len({tuple(np.atleast_1d(line.get_color()).tolist()) for line in lines}) == len(lines) == 20
    box, width = figure.legends[0].get_window_extent(), figure.bbox.width
    assert len(figure.legends[0].get_texts()) == 20 and box.x0 >= 0 and box.x1 <= width


@pytest.fixture
def figure_of(monkeypatch, tmp_path):
    """Draws learning curves and gives their figure."""
    kept, save = [], logs.save_figure
    monkeypatch.setattr(logs, "save_figure", lambda figure, path: (kept.append(figure), save(figure, path))[1])

    def draw(runs, **options):
        assert logs.plot_learning_curves(runs, tmp_path / "curves.png", **options).stat().st_size > 5000
        return kept[-1]

    return draw


def made(folder, losses, **more):
    """A run's folder."""
    folder.mkdir()
    rows = [{"step": 10 * n, "time": 0.0, "train/loss": loss, **more} for n, loss in enumerate(losses, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def panels(figure):
    return {axis.get_ylabel(): axis for axis in figure.axes if axis.get_ylabel()}


def test_one_run_its_losses_by_pattern(figure_of, tmp_path):
    run = made(tmp_path / "a", [3.0, 2.0, 1.0], **{"eval/loss": 0.5, "accuracy": 0.1})
    shown = panels(figure_of(run))
    assert list(shown) == ["eval/loss", "train/loss"] and shown["train/loss"].get_yscale() == "linear"
    (line,) = shown["train/loss"].get_lines()
    assert line.get_xdata().tolist() == [10, 20, 30] and line.get_ydata().tolist() == [3, 2, 1]
    assert list(panels(figure_of(str(run), metrics=["acc*", "train/*"]))) == ["accuracy", "train/loss"]
    assert list(panels(figure_of({"x": run / "metrics.jsonl"}, metrics="accuracy"))) == ["accuracy"]
    with pytest.raises(UsageError, match="no run has logged 'los'; nearest: "):
        figure_of(run, metrics="los")


def test_several_runs_smoothed_on_a_logarithmic_axis(figure_of, tmp_path):
    a, b = made(tmp_path / "a", [8.0, 2.0], lr=0.0), made(tmp_path / "b", [4.0, float("nan"), 2.0], lr=1.0)
    figure = figure_of({"first": a, "second": b}, metrics=["train/loss", "lr"], smoothing=0.5, log=True)
    shown = panels(figure)
    assert list(shown) == ["lr (linear)", "train/loss"]
    assert shown["train/loss"].get_yscale() == "log" and shown["lr (linear)"].get_yscale() == "linear"
    lines = {line.get_label(): line.get_ydata() for line in shown["train/loss"].get_lines()}
    assert lines["first"] == pytest.approx([8.0, (0.5 * 0.5 * 8 + 0.5 * 2) / 0.75])
    second = lines["second"]
    assert np.isnan(second[1]) and second[[0, 2]] == pytest.approx([4.0, (0.5 * 0.5 * 4 + 0.5 * 2) / 0.75])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["first", "second"]
    assert [text.get_text() for text in figure_of([a, b]).legends[0].get_texts()] == ["a", "b"]


def test_runs_that_logged_nothing_are_told():
    with pytest.raises(UsageError, match="nothing was logged by these runs"):
        logs.chosen([])
