import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from domains import arc
from runtime.errors import UsageError

GRIDS = arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30)), elements=st.integers(0, 9))
NAMES = st.builds(
    lambda symmetry, order: arc.augmentation("task", symmetry, np.array([0, *order])),
    st.integers(0, 7), st.permutations(range(1, 10)),
)  # fmt: skip
GRID = np.array([[0, 1, 2], [3, 4, 5]], np.uint8)


def test_tokens_by_hand():
    sheet = arc.tokens(GRID).reshape(30, 30)
    assert sheet[:4, :5].tolist() == [[2, 3, 4, 1, 0], [5, 6, 7, 1, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
    assert sheet.sum() == 2 + 3 + 4 + 5 + 6 + 7 + 5
    moved = arc.tokens(GRID, 28, 26).reshape(30, 30)
    assert moved[27:, 25:].tolist() == [[0] * 5, [0, 2, 3, 4, 1], [0, 5, 6, 7, 1]]
    assert arc.tokens(GRID, 27, 26).reshape(30, 30)[28:, 25:].tolist() == [[0, 5, 6, 7, 1], [0, 1, 1, 1, 0]]
    assert (arc.tokens(np.full((30, 30), 9, np.uint8)) == 11).all()
    assert (arc.tokens(np.stack([GRID, GRID + 1]))[1] == arc.tokens(GRID + 1)).all()


@settings(max_examples=50, deadline=None)
@given(GRIDS)
def test_tokens_give_the_grid_back(grid):
    assert np.array_equal(arc.grid(arc.tokens(grid)), grid)


def test_a_broken_sheet_gives_its_largest_rectangle():
    sheet = np.zeros((30, 30), np.uint8)
    assert arc.grid(sheet.ravel()).shape == (0, 0)
    sheet[0, :6] = sheet[1, :4] = sheet[2, :3] = 2
    assert arc.grid(sheet.ravel()).shape == (3, 3)  # 6, 8 and 9 cells
    sheet[3, :2] = sheet[2, :4] = 2
    assert arc.grid(sheet.ravel()).shape == (3, 4)
    sheet[0, 0] = arc.END
    assert arc.grid(sheet.ravel()).shape == (0, 0)
    equal = np.zeros((30, 30), np.uint8)
    equal[0, :2] = equal[1, :1] = 5
    assert arc.grid(equal.ravel()).tolist() == [[3, 3]]


@settings(max_examples=50, deadline=None)
@given(GRIDS, NAMES)
def test_the_inverse_undoes_an_augmentation(grid, name):
    assert np.array_equal(arc.inverse(name, arc.augmented(name, grid)), grid)
    assert arc.original(name) == "task"


def test_augmentations_by_hand():
    name = "ab12|||t1|||0234567891"
    assert arc.augmentation("ab12", 1, np.array([0, 2, 3, 4, 5, 6, 7, 8, 9, 1])) == name
    assert arc.augmented(name, GRID).tolist() == [[3, 6], [2, 5], [0, 4]]
    assert (arc.augmented("ab12", GRID) == GRID).all() and (arc.inverse("ab12", GRID) == GRID).all()
    assert arc.original("ab12") == "ab12"


@pytest.mark.parametrize("name", ["a|||t8|||0123456789", "a|||t1|||0123456788", "a|||1|||0123456789", "a|||t1"])
def test_other_names_are_refused(name):
    with pytest.raises(UsageError, match="is called TASK"):
        arc.parsed(name)


@pytest.mark.parametrize("rows", [[], [[]], [[0, 10]], [[-1]], [[0, 1], [2]], [["a"]], [[0] * 31], None])
def test_other_grids_are_refused(rows):
    with pytest.raises(UsageError, match="ARC grid"):
        arc.grid_of(rows)


def pairs(seed, colours=10, side=4):
    rng = np.random.default_rng(seed)
    return [tuple(rng.integers(0, colours, (2, side, side + 1), np.uint8)) for _ in range(2)]


def test_the_canonical_form_is_shared_by_augmentations_only():
    one, two = pairs(0)
    names = arc.plan("t", [one], 40, np.random.default_rng(1))
    forms = {arc.canonical(tuple(arc.augmented(name, grid) for grid in one)) for name in names}
    assert forms == {arc.canonical(one)}
    assert arc.canonical(two) not in forms and arc.canonical(one[::-1]) not in forms
    black = tuple(np.array([1, 0, *range(2, 10)], np.uint8)[grid] for grid in one)
    assert arc.canonical(black) not in forms  # black is a colour of its own


def test_a_plan_is_seeded_and_looks_different_every_time():
    task = pairs(0)
    names = arc.plan("t", task, 30, np.random.default_rng(0))
    assert names == arc.plan("t", task, 30, np.random.default_rng(0))
    looks = {tuple(arc.key(*(arc.augmented(name, grid) for grid in pair)) for pair in task) for name in ["t", *names]}
    assert len(looks) == 31


def test_a_task_of_few_looks_has_few_augmentations():
    black = [(np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.uint8))]
    assert arc.plan("t", black, 10, np.random.default_rng(0)) == []
    dot = np.zeros((3, 3), np.uint8)
    dot[0, 0] = 1
    names = arc.plan("t", [(dot, dot)], 1000, np.random.default_rng(0))
    assert len(names) == 4 * 9 - 1  # four corners, nine colours
    both = [(dot, dot), (dot[::-1], dot[::-1])]  # mirrored, the task is the same but for the pairs' order
    assert len(arc.plan("t", both, 1000, np.random.default_rng(0))) == 4 * 9 - 1


def test_a_leaked_pair_is_found_under_an_augmentation():
    one, two, three = pairs(0)[0], pairs(1)[0], pairs(2)[0]
    name = "x|||t3|||0987654321"
    hidden = tuple(arc.augmented(name, grid) for grid in two)
    assert arc.leaked({"clean": [one, three], "same": [one, hidden]}, [two]) == ["same"]
