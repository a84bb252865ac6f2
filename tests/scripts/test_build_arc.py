import json

import numpy as np
import pytest

from domains import arc
from scripts import build_arc


def pair(rng, shape=(3, 4)):
    return {key: rng.integers(0, 10, shape).tolist() for key in ("input", "output")}


def augmented(found, name):
    return {key: arc.augmented(name, arc.grid_of(rows)).tolist() for key, rows in found.items()}


@pytest.fixture
def official(tmp_path):
    """Three training tasks, of which "leak" shows a test pair turned, and two evaluation tasks."""
    rng = np.random.default_rng(0)
    tasks = {
        "training": {name: {"train": [pair(rng), pair(rng)], "test": [pair(rng)]} for name in ("one", "two", "leak")},
        "evaluation": {name: {"train": [pair(rng)] * 2, "test": [pair(rng), pair(rng)]} for name in ("ask", "more")},
    }
    turned = augmented(tasks["evaluation"]["ask"]["test"][1], "x|||t5|||0132456789")
    tasks["training"]["leak"]["train"].append(turned)
    for part, found in tasks.items():
        (tmp_path / "data" / part).mkdir(parents=True)
        for name, made in found.items():
            (tmp_path / "data" / part / f"{name}.json").write_text(json.dumps(made))
    return tmp_path


def build(official, *more):
    return build_arc.main([f"folder={official / 'data'}", f"out={official / 'out'}", "augmentations=5", *more])


def rows(official, split):
    """Name, input and label of every example, and the groups as sets of names."""
    place = official / "out"
    names = json.loads((place / "identifiers.json").read_text())
    x, y, own, puzzles, groups = (
        np.load(place / split / f"all__{name}.npy")
        for name in ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices")
    )
    each = [names[number] for number, size in zip(own, np.diff(puzzles), strict=True) for _ in range(size)]
    grouped = [{names[number] for number in own[a:b]} for a, b in zip(groups, groups[1:], strict=False)]
    return list(zip(each, x, y, strict=True)), grouped


def test_test_pairs_are_asked_in_the_corner_and_under_the_same_names(official, capsys):
    assert build(official) == 0
    assert "2 training and 2 evaluation tasks, 24 identifiers" in (said := capsys.readouterr().out)
    assert "1 training tasks left out" in said
    known, train_groups = rows(official, "train")
    asked, test_groups = rows(official, "test")
    tasks = {file.stem: json.loads(file.read_text()) for file in official.glob("data/*/*.json")}
    assert len(asked) == 2 * 6 * 2 and len(known) == 2 * 6 * 3 + 2 * 6 * 2
    assert all(len(group) == 6 for group in train_groups + test_groups)
    assert set().union(*test_groups) < set().union(*train_groups)
    assert {arc.original(name) for name, *_ in known} == {"one", "two", "ask", "more"}
    for index, (name, x, y) in enumerate(asked):
        truth = tasks[arc.original(name)]["test"][index % 2]
        assert arc.inverse(name, arc.grid(x)).tolist() == truth["input"]
        assert arc.inverse(name, arc.grid(y)).tolist() == truth["output"]
    assert json.loads((official / "out/test_puzzles.json").read_text()) == {
        name: tasks[name] for name in ("ask", "more")
    }


def unplaced(sheet):
    """The grid of 3 x 4 or 4 x 3 in a sheet, wherever it is, and where it begins."""
    down, across = np.nonzero(sheet.reshape(30, 30) >= 2)
    grid = sheet.reshape(30, 30)[down.min() : down.max() + 1, across.min() : across.max() + 1] - 2
    return grid, (down.min(), across.min())


def test_training_pairs_lie_anywhere_together_and_one_in_the_corner(official):
    build(official)
    known, _ = rows(official, "train")
    tasks = {file.stem: json.loads(file.read_text()) for file in official.glob("data/*/*.json")}
    corner, places = {}, set()
    for name, x, y in known:
        (x_grid, place), (y_grid, y_place) = unplaced(x), unplaced(y)
        assert place == y_place and (arc.tokens(x_grid, *place) == x).all() and (arc.tokens(y_grid, *place) == y).all()
        task = tasks[arc.original(name)]
        found = {"input": arc.inverse(name, x_grid).tolist(), "output": arc.inverse(name, y_grid).tolist()}
        assert found in task["train"] + (task["test"] if arc.original(name) in ("one", "two") else [])
        corner[name] = corner.get(name, 0) + (place == (0, 0))
        places.add(place)
    assert min(corner.values()) == 1
    assert len(places) > 20 and max(max(place) for place in places) > 20


def test_pairs_of_two_sizes_fit_on_the_sheet():
    rng = np.random.default_rng(0)
    grids = np.zeros((30, 2), np.uint8), np.zeros((4, 28), np.uint8)
    assert {build_arc.anywhere(grids, rng) for _ in range(50)} == {(0, 0), (0, 1), (0, 2)}


def test_a_build_is_seeded_and_may_be_of_few_tasks(official):
    found = []
    for seed in (0, 0, 1):
        build(official, f"seed={seed}", "tasks=1")
        found.append(rows(official, "train"))
    assert [name for name, *_ in found[0][0]] == [name for name, *_ in found[1][0]]
    assert all((a[1] == b[1]).all() for a, b in zip(found[0][0], found[1][0], strict=True))
    assert [name for name, *_ in found[0][0]] != [name for name, *_ in found[2][0]]
    assert len(found[0][1]) <= 2 and len(rows(official, "test")[1]) == 1


@pytest.mark.parametrize("text", ["{", "{}", '{"train": [], "test": []}', '{"train": [{"input": [[1]]}], "test": []}',
                                  '{"train": [{"input": [[1]], "output": [[11]]}], "test": []}', "[]"])  # fmt: skip
def test_broken_tasks_end_in_a_sentence(official, text, capsys):
    (official / "data/training/one.json").write_text(text)
    assert build(official) == 2
    assert "error: " in (said := capsys.readouterr().err) and ("task one" in said or "not JSON" in said)
    assert not (official / "out").exists()


def test_missing_tasks_end_in_a_sentence(official, capsys):
    assert build_arc.main([f"folder={official}", f"out={official / 'out'}"]) == 2
    assert "there is no task in" in capsys.readouterr().err
    assert build_arc.main(["version=3", f"out={official / 'out'}"]) == 2
    assert "version must be 1 or 2, got 3" in capsys.readouterr().err


@pytest.mark.parametrize("version, sizes", [(1, [400, 400]), (2, [1000, 120])])
def test_the_package_has_both_versions(version, sizes):
    parts = build_arc.packaged(version)
    assert [len(part) for part in parts] == sizes
    for part in parts:
        for name in list(part)[:3]:
            assert build_arc.task(name, part[name]).asked
