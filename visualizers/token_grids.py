"""Mazes and ARC grids as pictures of their tokens, a pixel a cell."""

import numpy as np

from runtime.errors import UsageError

# padding, wall, open, start, goal, path
MAZE = ["#e8e8e8", "#333333", "#ffffff", "#2ca02c", "#9467bd", "#7fb2dd"]
# padding, end, then ARC's ten colours: black, blue, red, green, yellow, grey, magenta, orange, cyan, maroon
ARC = ["#f4f4f4", "#dddddd", "#000000", "#0074d9", "#ff4136", "#2ecc40", "#ffdc00", "#aaaaaa", "#f012be", "#ff851b",
       "#7fdbff", "#870c25"]  # fmt: skip
PALETTES = {"maze": MAZE, "arc": ARC}
WRONG = "#ff0000"


def rgb(colour: str) -> list[float]:
    """A colour "#rrggbb" as three numbers in [-1, 1]."""
    return [int(colour[at : at + 2], 16) / 127.5 - 1 for at in (1, 3, 5)]


def images(tokens: np.ndarray, kind: str, wrong: np.ndarray | None = None) -> np.ndarray:
    """Square grids of tokens (..., S) as images (..., side, side, 3) in [-1, 1]; what is wrong (..., S) bool in red.

    kind: "maze" or "arc". Negative tokens (labels that are not judged) look like padding.
    """
    side = round(tokens.shape[-1] ** 0.5)
    if kind not in PALETTES or side * side != tokens.shape[-1]:
        raise UsageError(f"pictures are of square grids of kind {' or '.join(PALETTES)}, got {kind!r} of "
                         f"{tokens.shape[-1]} tokens.")  # fmt: skip
    palette = np.array([rgb(colour) for colour in PALETTES[kind]], np.float32)
    found = palette[np.clip(tokens, 0, len(palette) - 1)]
    if wrong is not None:
        found = np.where(wrong[..., None], np.array(rgb(WRONG), np.float32), found)
    return found.reshape(*tokens.shape[:-1], side, side, 3)
