from collections import deque

import numpy as np
import pytest

from domains import dihedral, maze
from runtime.errors import UsageError

TEXT = {"#": maze.WALL, " ": maze.OPEN, "S": maze.START, "G": maze.GOAL, "o": maze.PATH}


def grid(*lines):
    return np.array([TEXT[character] for line in lines for character in line], np.uint8)


def searched(cells):
    """The label of a maze by a queue, cell by cell; None where there is no way."""
    side = maze.side_of(len(cells))
    start, goal = (divmod(int((cells == token).argmax()), side) for token in (maze.START, maze.GOAL))
    parent, queue = {start: start}, deque([start])
    while queue:
        row, column = queue.popleft()
        for down, across in ((1, 0), (0, -1), (0, 1), (-1, 0)):
            near = row + down, column + across
            inside = 0 <= near[0] < side and 0 <= near[1] < side
            if inside and near not in parent and cells[near[0] * side + near[1]] != maze.WALL:
                parent[near] = (row, column)
                queue.append(near)
    if goal not in parent:
        return None
    label, at = cells.copy(), parent[goal]
    while at != start:
        label[at[0] * side + at[1]] = maze.PATH
        at = parent[at]
    return label


def some(count=60, side=9, shortest=6, seed=0, walls=(0.1, 0.4)):
    batches, found = (
        maze.drawn(side, shortest, np.random.default_rng(seed), walls),
        np.empty((0, side * side), np.uint8),
    )
    while len(found) < count:
        found = np.concatenate([found, next(batches)])
    return found[:count]


def test_labels_are_those_of_a_breadth_first_search_that_looks_down_left_right_up():
    for side, walls in ((5, (0.0, 0.1)), (9, (0.1, 0.4)), (32, (0.2, 0.35))):
        mazes = some(40, side, side // 2, side, walls)
        labels, moves = maze.solve(mazes)
        assert all((label == searched(cells)).all() for label, cells in zip(labels, mazes, strict=True))
        assert ((labels == maze.PATH).sum(axis=1) == moves - 1).all()


def test_of_equally_short_paths_the_order_decides_by_hand():
    mazes = np.stack([grid("S  ", "   ", "  G"), grid("  S", "   ", "G  "), grid("G  ", "   ", "  S"),
                      grid(" S ", " # ", " G "), grid("  G", "   ", "S  "),
                      grid("SG ", "###", "   "), grid("S# ", "###", "  G")])  # fmt: skip
    labels, moves = maze.solve(mazes)
    assert (labels[0] == grid("S  ", "o  ", "ooG")).all()  # down before right
    assert (labels[1] == grid("  S", "  o", "Goo")).all()  # down before left
    assert (labels[2] == grid("G  ", "o  ", "ooS")).all()  # left before up
    assert (labels[3] == grid("oS ", "o# ", "oG ")).all()  # left before right
    assert (labels[4] == grid("  G", "  o", "Soo")).all()  # right before up
    assert (labels[5:] == mazes[5:]).all()
    assert moves.tolist() == [4, 4, 4, 4, 4, 1, 0]


def test_drawn_mazes_have_far_goals_the_share_of_walls_and_are_seeded():
    mazes = some(300, 15, 20, 1, (0.3, 0.4))
    assert mazes.shape == (300, 225) and mazes.dtype == np.uint8
    assert ((mazes == maze.START).sum(axis=1) == 1).all() and ((mazes == maze.GOAL).sum(axis=1) == 1).all()
    assert maze.solve(mazes)[1].min() == 20
    assert 0.3 < (mazes == maze.WALL).mean() < 0.4
    assert (mazes == some(300, 15, 20, 1, (0.3, 0.4))).all()
    assert not (mazes == some(300, 15, 20, 2, (0.3, 0.4))).all()


def test_every_open_cell_may_be_the_start():
    corners = some(400, 3, 1, 0, (0.0, 0.0))
    counts = (corners == maze.START).sum(axis=0)
    assert counts.min() > 400 / 9 - 4 * (400 / 9) ** 0.5 and counts.max() < 400 / 9 + 4 * (400 / 9) ** 0.5


def test_the_canonical_form_is_shared_by_the_eight_images_only():
    mazes = some(30)
    for cells in mazes:
        images = [dihedral.transformed(cells.reshape(9, 9), index).reshape(-1) for index in range(8)]
        assert len({maze.canonical(image) for image in images}) == 1
    assert len({maze.canonical(cells) for cells in mazes}) == 30


def test_augmented_mazes_are_images_of_theirs_with_labels_of_the_same_rule():
    mazes = some(80)
    moved, labels = maze.augmented(mazes, maze.solve(mazes)[0], np.random.default_rng(3))
    assert [maze.canonical(cells) for cells in moved] == [maze.canonical(cells) for cells in mazes]
    assert all((label == searched(cells)).all() for label, cells in zip(labels, moved, strict=True))
    images = np.stack([dihedral.transformed(mazes.reshape(-1, 9, 9), index).reshape(-1, 81) for index in range(8)])
    assert (images == moved).all(axis=2).any(axis=1).all()  # every symmetry is used


def test_a_label_moved_along_with_its_maze_may_break_the_rule():
    cells = grid("S  ", "   ", "  G")
    label = maze.solve(cells[None])[0][0]
    flipped = label.reshape(3, 3).T.reshape(-1)  # the maze is its own transpose
    assert (flipped != label).any()
    assert maze.shortest(cells[None], flipped[None])[0]


def test_shortest_accepts_other_shortest_paths_and_nothing_else():
    cells = grid("S  ", " # ", "  G")
    right = [("Soo", " #o", "  G"), ("S  ", "o# ", "ooG")]
    wrong = [("S  ", " # ", "  G"), ("Soo", " #o", "o G"), ("Soo", "o#o", "ooG"), ("Soo", " oo", "  G"),
             ("Soo", " #o", "  o"), ("ooo", " #o", "  G"), ("So ", "o#o", "  G")]  # fmt: skip
    answers = np.stack([grid(*lines) for lines in (*right, *wrong)])
    assert maze.shortest(np.tile(cells, (9, 1)), answers).tolist() == [True] * 2 + [False] * 7
    long = grid("Soo ", "## o", "G##o", "oooo")
    assert not maze.shortest(np.where(long == maze.PATH, maze.OPEN, long)[None].astype(np.uint8), long[None])[0]
    blocked = grid("S#G", "###", "   ")
    assert not maze.shortest(blocked[None], blocked[None])[0]


def test_impossible_wishes_name_what_is_needed():
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="side from 2 to 32.*got side 33, 10 moves"):
        next(maze.drawn(33, 10, rng))
    with pytest.raises(UsageError, match="got 8 cells"):
        maze.solve(np.zeros((1, 8), np.uint8))
    with pytest.raises(UsageError, match="had no path of 15 moves"):
        next(maze.drawn(4, 15, rng, (0.0, 0.0)))
