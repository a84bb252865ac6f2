"""The eight symmetries of a square, numbered as in the TRM repository's data sets."""

import numpy as np

COUNT = 8
INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)


def transformed(grids: np.ndarray, index: int) -> np.ndarray:
    """Grids (..., rows, columns) after symmetry `index`, as a view where one is possible.

    0: none; 1 to 3: so many quarter turns counterclockwise; 4: columns reversed; 5: rows reversed; 6: transposed; 7:
    transposed about the other diagonal. The result has rows and columns swapped for 1, 3, 6 and 7.
    """
    if index < 4:
        return np.rot90(grids, index, axes=(-2, -1))
    if index == 4:
        return grids[..., ::-1]
    if index == 5:
        return grids[..., ::-1, :]
    turned = grids.swapaxes(-2, -1)
    return turned if index == 6 else turned[..., ::-1, ::-1]
