"""Curves of many runs in one picture: all told apart, all named."""

import numpy as np
import pytest

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
