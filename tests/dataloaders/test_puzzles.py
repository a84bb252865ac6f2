import time

import numpy as np
import pytest

from dataloaders.pipeline import Pipeline
from dataloaders.puzzle_files import Split, write
from dataloaders.puzzles import Puzzles
from domains import maze
from domains.sudoku import apply as moved
from domains.sudoku import invariant, parse, solve, symmetries, tokens, valid
from runtime.errors import UsageError

SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
FOUR = "1234341221434321"


def sudokus(line: str, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng, side = np.random.default_rng(seed), round(len(line) ** 0.5)
    full = moved(parse(line, 1, side)[None].repeat(count, 0), *symmetries(count, side, rng))
    return np.where(rng.random(full.shape) < 0.7, full, 0).astype(np.uint8), full


@pytest.fixture
def four(tmp_path):
    """30 training and 10 test Sudokus of side 4."""
    puzzles, solutions = sudokus(FOUR, 40)
    train, test = slice(30), slice(30, 40)
    write(
        tmp_path / "four",
        {"train": Split(tokens(puzzles[train]), tokens(solutions[train])),
         "test": Split(tokens(puzzles[test]), tokens(solutions[test]), sets=["easy"] * 4 + ["hard"] * 6)},
        6,
    )  # fmt: skip
    return str(tmp_path / "four")


@pytest.fixture
def grouped(tmp_path):
    """Group 0: puzzles of 2, 2 and 3 examples; group 1: of 1 and 1; group 2: of 3. The first token is the row."""
    inputs = np.repeat(np.arange(12, dtype=np.uint8)[:, None], 4, axis=1)
    labels = inputs.copy()
    labels[:, 1] = 0  # fills up
    split = Split(inputs, labels, np.arange(6), np.array([0, 2, 4, 7, 8, 9, 12]), np.array([0, 3, 5, 6]))
    write(tmp_path / "grouped", {"train": split, "test": split}, 12, [f"p{i}" for i in range(6)])
    return str(tmp_path / "grouped")


def test_rows_as_stored(grouped):
    data = Puzzles(grouped, "test")
    batch = data.take(np.array([3, 7, 11]), np.random.default_rng(0))
    assert {key: value.dtype for key, value in batch.items()} == dict.fromkeys(("x", "label", "puzzle"), np.int32)
    assert batch["x"][:, 0].tolist() == [3, 7, 11] and batch["puzzle"].tolist() == [1, 3, 5]
    assert batch["label"].tolist() == [[3, -100, 3, 3], [7, -100, 7, 7], [11, -100, 11, 11]]
    assert (data.shape, data.classes, data.identifiers, len(data), data.sets) == ((4,), 12, 6, 12, None)
    assert data.names == [f"p{i}" for i in range(6)]
    assert data.order(None).tolist() == list(range(12))


def test_a_pass_takes_one_puzzle_of_every_group_with_all_its_examples(grouped):
    data = Puzzles(grouped, "train")
    assert len(data) == 2 + 1 + 3  # as many examples of group 0 as its smallest puzzle has
    assert data.order(None).tolist() == [0, 1, 7, 9, 10, 11]
    rng, seen = np.random.default_rng(0), set()
    for _ in range(200):
        rows = data.order(rng)
        puzzles = np.searchsorted([0, 2, 4, 7, 8, 9, 12], rows, side="right") - 1
        groups = np.array([0, 0, 0, 1, 1, 2])[puzzles]
        assert len(rows) == len(set(rows.tolist())) == 6
        assert np.bincount(groups).tolist() == [2, 1, 3] and len(set(puzzles.tolist())) == 3
        assert (np.diff(groups) != 0).sum() == 2  # a puzzle's examples stand together
        seen |= set(rows.tolist())
    assert seen == set(range(12))  # every example comes up


def test_an_epoch_of_several_passes_visits_every_puzzle_so_often(four):
    data = Puzzles(four, "train", passes=4)
    assert len(data) == 120
    rows = data.order(np.random.default_rng(0))
    assert (np.sort(rows.reshape(4, 30), axis=1) == np.arange(30)).all()
    assert len({tuple(part) for part in rows.reshape(4, 30).tolist()}) == 4
    pipeline = Pipeline(data, batch_size=40, prefetch=0)  # more than there are puzzles
    assert pipeline.steps_per_epoch == 3
    batches = [batch["x"] for _, batch in zip(range(3), pipeline.batches("train"), strict=False)]
    found = np.unique(np.concatenate(batches), axis=0, return_counts=True)[1]
    assert (found % 4 == 0).all() and found.sum() == 120


def test_augmentation_draws_symmetries_anew(four):
    data = Puzzles(four, "train", augment="sudoku")
    rows = np.repeat(np.arange(30), 20)
    batch = data.take(rows, np.random.default_rng(0))
    assert valid(batch["label"] - 1).all() and batch["x"].min() == 1 and batch["x"].max() == 5
    assert ((batch["x"] == 1) | (batch["x"] == batch["label"])).all()
    assert (solve((batch["x"] - 1).astype(np.uint8))[1] > 0).all()
    stored = invariant(data.inputs - np.uint8(1))
    assert (invariant((batch["x"] - 1).astype(np.uint8)) == stored[rows]).all()
    assert len(np.unique(batch["x"].reshape(30, 20, 16)[0], axis=0)) > 15
    again = data.take(rows, np.random.default_rng(0))
    assert (again["x"] == batch["x"]).all() and (data.take(rows, np.random.default_rng(1))["x"] != batch["x"]).any()


def test_batches_are_functions_of_seed_and_number(four):
    data, test = Puzzles(four, "train", "sudoku", passes=2), Puzzles(four, "test")
    pipeline, other = (Pipeline(data, test, batch_size=8, seed=seed, prefetch=0) for seed in (3, 4))
    whole = [batch for _, batch in zip(range(20), pipeline.batches("train"), strict=False)]
    for start in (1, 7, 13):  # 7 batches an epoch
        for batch, expected in zip(pipeline.batches("train", start), whole[start : start + 3], strict=False):
            assert all((batch[key] == expected[key]).all() for key in ("x", "label", "puzzle"))
    assert (whole[0]["x"] != next(iter(other.batches("train")))["x"]).any()
    held_out = list(pipeline.batches("eval"))
    assert [batch["mask"].sum() for batch in held_out] == [8, 2]
    assert (held_out[0]["x"] == test.inputs[:8]).all()
    assert test.sets is not None and test.sets.tolist() == ["easy"] * 4 + ["hard"] * 6
    assert pipeline.fingerprint("train") != pipeline.fingerprint("eval")


def test_a_batch_of_768_is_augmented_in_milliseconds(tmp_path):
    puzzles, solutions = sudokus(SOLUTION, 50)
    write(tmp_path, {"train": Split(tokens(puzzles), tokens(solutions))}, 11)
    data, rng = Puzzles(str(tmp_path), "train", "sudoku", passes=20), np.random.default_rng(0)
    rows, times = data.order(rng)[:768], []
    for _ in range(10):
        began = time.process_time()
        data.take(rows, rng)
        times.append(time.process_time() - began)
    assert min(times) < 0.03  # about 5 ms; a loop over the rows takes 60


def test_missing_data_name_the_command(tmp_path):
    with pytest.raises(UsageError, match=r"scripts/build_puzzles.py sudoku side=4 count=9 out=nowhere makes them"):
        Puzzles("nowhere", "train", build="sudoku side=4 count=9")


def test_wrong_arguments_and_tokens_are_refused(four, tmp_path):
    with pytest.raises(UsageError, match="split train or test and passes from 1, got 'train' and 0"):
        Puzzles(four, passes=0)
    with pytest.raises(UsageError, match="augment must be null or one of sudoku.*got 'chess'"):
        Puzzles(four, augment="chess")
    write(tmp_path / "five", {"train": Split(np.full((2, 25), 3), np.full((2, 25), 3))}, 7)
    with pytest.raises(UsageError, match="16, 36 or 81 cells, got 25"):
        Puzzles(str(tmp_path / "five"), augment="sudoku")
    write(tmp_path / "high", {"train": Split(np.full((2, 16), 6), np.full((2, 16), 5))}, 6)
    with pytest.raises(UsageError, match="tokens must be below vocab_size=6, got 6"):
        Puzzles(str(tmp_path / "high"))


def test_labels_of_turned_mazes_are_found_anew(tmp_path):
    mazes = next(maze.drawn(8, 8, np.random.default_rng(0)))[:6]
    write(tmp_path, {"train": Split(mazes, maze.solve(mazes)[0])}, maze.VOCABULARY)
    batch = Puzzles(str(tmp_path), augment="maze").take(np.repeat(np.arange(6), 10), np.random.default_rng(0))
    assert (maze.solve(batch["x"].astype(np.uint8))[0] == batch["label"]).all()
    assert len(np.unique(batch["x"].reshape(6, 10, 64)[0], axis=0)) > 4
