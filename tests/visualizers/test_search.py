"""What a search's pictures show: the numbers of the search, its best, and what failed."""

import json

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UsageError
from visualizers import search as drawing
from visualizers.search import (
    heat,
    visualize_cartesian,
    visualize_heatmap,
    visualize_parallel_coordinates,
    visualize_search,
)
from visualizers.search_data import SearchData


def searched(mode="min", **params):
    """A search over all combinations, of the sum of numbers and the lengths of words; one more evaluation failed."""
    rows = [{}]
    for name, values in params.items():
        rows = [{**row, name: value} for row in rows for value in values]
    done = []
    for index, row in enumerate(rows, 1):
        total = sum(len(v) if isinstance(v, str) else v for v in row.values())
        done.append({"param": {**row, "search_idx": index}, "result": {"total": total, "note": "text", "curve": [1]}})
    done.append({"param": {**rows[0], "search_idx": len(done) + 1}, "error": "ValueError: no"})
    return {"name": "s", "best_mode": mode, "optimize_field": "total", "search_summary": done}


def stored(folder, state):
    path = folder / "s.json"
    path.write_text(json.dumps(state))
    return path


def test_columns_are_what_varies_and_what_is_a_number(tmp_path):
    data = SearchData(stored(tmp_path, searched(a=[2, 1], b=["xx", "y"], c=[7])))
    assert data.params == ["a", "b"] and data.results == ["total"] and (data.count, data.failed) == (4, 1)
    assert data.columns["total"] == [11, 10, 10, 9] and data.best_row(data.field) == 3
    assert SearchData(searched("max", a=[2, 1])["search_summary"]).best_row("total") is None
    assert data.places("b")[0].tolist() == [0, 1, 0, 1] and data.places("b")[1] == ["xx", "y"]
    wide = SearchData(searched(a=[0.001, 0.1], b=[1, 2])["search_summary"])
    assert wide.logarithmic("a") and not wide.logarithmic("b")


def test_a_heat_map_has_every_number_in_its_cell(tmp_path):
    state = searched("max", a=[3, 1, 2], b=["xx", "y"])
    grid, ticks = heat(SearchData(stored(tmp_path, state)), "total")
    np.testing.assert_array_equal(grid, [[3, 4, 5], [2, 3, 4]])
    assert ticks == (["1", "2", "3"], ["xx", "y"])
    del state["search_summary"][0]
    grid, _ = heat(SearchData(stored(tmp_path, state)), "total")
    assert np.isnan(grid[0, 2]) and np.isnan(grid).sum() == 1


@pytest.mark.parametrize(
    ("params", "draw"),
    [
        ({"a": [1, 2, 3]}, "visualize_cartesian"),
        ({"a": [1e-4, 1], "b": ["x", "yy"]}, "visualize_heatmap"),
        ({"a": [1, 2], "b": [3, 4], "c": ["x", "yy", "zzz"]}, "visualize_parallel_coordinates"),
    ],
    ids=lambda x: len(x) if isinstance(x, dict) else "",
)
def test_the_picture_that_suits_is_drawn(params, draw, tmp_path, monkeypatch):
    path, chosen = stored(tmp_path, searched(**params)), []
    own = getattr(drawing, draw)
    monkeypatch.setattr(drawing, draw, lambda *given: chosen.append(draw) or own(*given))
    assert visualize_search(path, tmp_path / "s.png") == tmp_path / "s.png" and chosen == [draw]
    with Image.open(tmp_path / "s.png") as picture:
        assert min(picture.size) > 300


def test_any_number_of_parameters_has_cartesian_and_parallel_axes(tmp_path):
    path = stored(tmp_path, searched(a=[1, 2], b=["x", "yy"], c=[0.1, 100.0]))
    visualize_cartesian(path, tmp_path / "c.png", title="mine")
    visualize_parallel_coordinates(path, tmp_path / "p.png", ignore_keys="a", color_by="total")
    assert Image.open(tmp_path / "c.png").width == 3 * 528


def test_the_best_is_red(tmp_path):
    """Red pixels appear once the mode is known, and there only."""
    for draw in (visualize_cartesian, visualize_heatmap, visualize_parallel_coordinates):
        counts = []
        for mode in ("min", None):
            draw(stored(tmp_path, searched(mode, a=[1, 2], b=[3, 5])), tmp_path / "s.png")
            pixels = np.asarray(Image.open(tmp_path / "s.png").convert("RGB")).astype(int)
            counts.append(int((np.abs(pixels - [214, 39, 40]).sum(-1) < 20).sum()))
        assert counts[0] > 30 and counts[1] == 0


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UsageError, match="no search file .*nowhere.json"):
        visualize_search(tmp_path / "nowhere.json", tmp_path / "s.png")
    with pytest.raises(UsageError, match="'aa' is no key.*nearest: a"):
        visualize_search(stored(tmp_path, searched(a=[1, 2])), tmp_path / "s.png", ignore_keys="aa")
    with pytest.raises(UsageError, match="two parameters that vary, got a"):
        visualize_heatmap(stored(tmp_path, searched(a=[1, 2])), tmp_path / "s.png")
    with pytest.raises(UsageError, match="one evaluation a cell"):
        visualize_heatmap(stored(tmp_path, searched(a=[1, 2], b=[1, 2], c=[1, 2])), tmp_path / "s.png", ignore_keys="c")
    with pytest.raises(UsageError, match="color_by must be one of the results total, got 'note'"):
        visualize_parallel_coordinates(stored(tmp_path, searched(a=[1, 2])), tmp_path / "s.png", color_by="note")
    with pytest.raises(UsageError, match="a parameter that varies"):
        visualize_search(stored(tmp_path, searched(a=[1])), tmp_path / "s.png")
    with pytest.raises(UsageError, match="no successful evaluation.*got 1 failed"):
        visualize_search([{"param": {"search_idx": 1, "a": 1}, "error": "no"}], tmp_path / "s.png")
    (tmp_path / "s.json").write_text("[]")
    with pytest.raises(UsageError, match="needs search_summary"):
        visualize_search(tmp_path / "s.json", tmp_path / "s.png")
