import numpy as np

from domains import dihedral

GRID = np.arange(6).reshape(2, 3)  # 0 1 2 / 3 4 5


def test_the_symmetries_by_hand():
    expected = [
        [[0, 1, 2], [3, 4, 5]],
        [[2, 5], [1, 4], [0, 3]],
        [[5, 4, 3], [2, 1, 0]],
        [[3, 0], [4, 1], [5, 2]],
        [[2, 1, 0], [5, 4, 3]],
        [[3, 4, 5], [0, 1, 2]],
        [[0, 3], [1, 4], [2, 5]],
        [[5, 2], [4, 1], [3, 0]],
    ]
    assert [dihedral.transformed(GRID, index).tolist() for index in range(dihedral.COUNT)] == expected


def test_inverses_undo_also_in_stacks():
    stack = np.stack([GRID, GRID + 6])
    for index, inverse in enumerate(dihedral.INVERSE):
        assert (dihedral.transformed(dihedral.transformed(stack, index), inverse) == stack).all()
        assert (dihedral.transformed(stack, index)[1] == dihedral.transformed(GRID + 6, index)).all()
