"""Pictures of a search: results against one parameter, over two, and as lines through all of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UsageError
from visualizers.canvas import INK, SAMPLES, new_figure, save_figure
from visualizers.search_data import SearchData, is_number

BEST = "#d62728"


def visualize_search(search: Any, save_path: Path | str, title: str | None = None,
                     ignore_keys: str | Sequence[str] = ()) -> Path:  # fmt: skip
    """The picture that suits: Cartesian for one varying parameter, a heat map for two, else parallel coordinates."""
    count = len(SearchData(search, ignore_keys).params)
    draw = {1: visualize_cartesian, 2: visualize_heatmap}.get(count, visualize_parallel_coordinates)
    return draw(search, save_path, title, ignore_keys)


def visualize_cartesian(search: Any, save_path: Path | str, title: str | None = None,
                        ignore_keys: str | Sequence[str] = ()) -> Path:  # fmt: skip
    """Results (rows) against parameters (columns): a line where only one varies, else dots; the best is red. PNG."""
    data = SearchData(search, ignore_keys)
    rows, columns = len(data.results), len(data.params)
    figure, axes = new_figure(4.4 * columns, 3.2 * rows + 0.4, rows, columns)
    for line, result in zip(axes, data.results, strict=True):
        values = np.array(data.columns[result], float)
        best = data.best_row(result)
        for axis, name in zip(line, data.params, strict=True):
            places, names = data.places(name)
            order = np.argsort(places, kind="stable")
            axis.plot(places[order], values[order], "-o" if columns == 1 and names is None else "o",
                      color=SAMPLES, markersize=4, linewidth=1)  # fmt: skip
            if best is not None:
                axis.plot(places[best], values[best], "o", color=BEST, markersize=7)
            axis.set(xlabel=name, ylabel=result, xscale="log" if data.logarithmic(name) else "linear")
            if names is not None:
                axis.set_xticks(range(len(names)), names)
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(_title(data, title), color=INK)
    return save_figure(figure, save_path)


def visualize_heatmap(search: Any, save_path: Path | str, title: str | None = None,
                      ignore_keys: str | Sequence[str] = ()) -> Path:  # fmt: skip
    """A map for each result over the two parameters that vary; dark is best, its cell framed in red. PNG.

    Points with equal parameters (others ignored) are refused; combinations that were not evaluated stay blank.
    """
    data = SearchData(search, ignore_keys)
    if len(data.params) != 2:
        raise UsageError(f"a heat map needs two parameters that vary, got {', '.join(data.params)}.")
    figure, axes = new_figure(5.2 * len(data.results), 4.4, 1, len(data.results))
    for axis, result in zip(axes[0], data.results, strict=True):
        grid, ticks = heat(data, result)
        image = axis.imshow(grid, origin="lower", aspect="auto", cmap="viridis" if data.mode == "min" else "viridis_r")
        figure.colorbar(image, ax=axis)
        for set_ticks, labels in zip((axis.set_xticks, axis.set_yticks), ticks, strict=True):
            set_ticks(range(len(labels)), labels)
        if grid.size <= 100:
            for (y, x), value in np.ndenumerate(grid):
                if not np.isnan(value):
                    axis.text(x, y, f"{value:.3g}", ha="center", va="center", color="white", fontsize=7,
                              bbox={"facecolor": "#00000080", "edgecolor": "none", "pad": 1})  # fmt: skip
        if not np.isnan(grid).all() and data.mode in ("min", "max"):
            y, x = np.unravel_index(np.nanargmin(grid) if data.mode == "min" else np.nanargmax(grid), grid.shape)
            axis.add_patch(_frame(int(x), int(y)))
        axis.set(xlabel=data.params[0], ylabel=data.params[1], title=result)
    figure.suptitle(_title(data, title), color=INK)
    return save_figure(figure, save_path)


def heat(data: SearchData, result: str) -> tuple[np.ndarray, tuple[list[str], list[str]]]:
    """A result over the two varying parameters, (values of the second, of the first), and the values as text."""
    ticks = []
    for name in data.params[:2]:
        values = data.columns[name]
        distinct = sorted(set(values)) if data.numeric(name) else sorted({str(value) for value in values})
        ticks.append([f"{value:.4g}" if is_number(value) else str(value) for value in distinct])
        spot = {value: index for index, value in enumerate(distinct)}
        data.columns[f"place of {name}"] = [spot[v if data.numeric(name) else str(v)] for v in values]
    grid = np.full((len(ticks[1]), len(ticks[0])), np.nan)
    x, y = (data.columns[f"place of {name}"] for name in data.params[:2])
    if len(set(zip(x, y, strict=True))) < data.count:
        raise UsageError("a heat map needs one evaluation a cell; got several with the same two parameters.")
    grid[y, x] = np.array(data.columns[result], float)
    return grid, (ticks[0], ticks[1])


def visualize_parallel_coordinates(search: Any, save_path: Path | str, title: str | None = None,
                                   ignore_keys: str | Sequence[str] = (),
                                   color_by: str | None = None) -> Path:  # fmt: skip
    """An axis for each parameter and result, a line for each evaluation, coloured by `color_by`; the best thick. PNG.

    color_by: a result; None for the one that the search optimises.
    """
    data = SearchData(search, ignore_keys)
    result = color_by or data.field
    if result not in data.results:
        raise UsageError(f"color_by must be one of the results {', '.join(data.results)}, got {color_by!r}.")
    names = [*data.params, *data.results]
    scaled = np.stack([_scaled(data, name) for name in names], axis=1)
    figure, axes = new_figure(max(5.0, 1.9 * len(names)), 4.4)
    axis = axes[0, 0]
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colour = np.array(data.columns[result], float)
    norm = Normalize(np.nanmin(colour), np.nanmax(colour))
    shades = colormaps["viridis" if data.mode == "min" else "viridis_r"]
    best = data.best_row(result)
    for row in range(data.count):
        thick = row == best
        axis.plot(range(len(names)), scaled[row], color=BEST if thick else shades(norm(colour[row])),
                  linewidth=2.4 if thick else 0.9, zorder=3 if thick else 2)  # fmt: skip
    for place, name in enumerate(names):
        axis.axvline(place, color=INK, linewidth=0.8, zorder=1)
        for height, label in _marks(data, name):
            axis.text(place + 0.03, height + 0.02, label, fontsize=7, color=INK, zorder=4)
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    figure.colorbar(ScalarMappable(norm, shades), ax=axis, label=result)
    figure.suptitle(_title(data, title), color=INK)
    return save_figure(figure, save_path)


def _scaled(data: SearchData, name: str) -> np.ndarray:
    """A column as heights (n,) between 0 and 1."""
    values = data.places(name)[0] if name in data.params else np.array(data.columns[name], float)
    values = np.log(values) if data.logarithmic(name) else values
    low, high = np.nanmin(values), np.nanmax(values)
    return np.full_like(values, 0.5) if low == high else (values - low) / (high - low)


def _marks(data: SearchData, name: str) -> list[tuple[float, str]]:
    """Heights and texts beside an axis: all categories, or the ends of a range."""
    heights = _scaled(data, name)
    texts = [f"{v:.3g}" if is_number(v) else str(v) for v in data.columns[name]]
    if name in data.params and not data.numeric(name):
        return sorted(set(zip(heights.tolist(), texts, strict=True)))
    ends = (int(np.nanargmin(heights)), int(np.nanargmax(heights)))
    return [(float(heights[row]), texts[row]) for row in dict.fromkeys(ends)]


def _title(data: SearchData, title: str | None) -> str:
    counts = {"evaluations": data.count, "failed": data.failed, "pruned": data.pruned}
    return title or f"{data.name}: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _frame(x: int, y: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=BEST, linewidth=2.5)
