"""Puzzles in files, laid out as in the repositories of HRM and TRM, whose sets can be read and which can read ours.

FOLDER/identifiers.json names the puzzle identifiers. FOLDER/{train,test}/ holds dataset.json and, under the name "all":
inputs and labels (N, S) integers, one example a row; puzzle_indices (P + 1,), where each puzzle's examples begin;
puzzle_identifiers (P,); group_indices (G + 1,), where each group's puzzles begin. A group is a puzzle with its
augmentations; the original comes first. Ours may add sets (N,), the name of the collection that an example is from.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UsageError

FIELDS = ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices")
NEEDED = ("seq_len", "vocab_size", "ignore_label_id", "num_puzzle_identifiers", "sets")


@dataclass
class Split:
    """Examples, tokens (N, S) each; without the other arrays every example is a puzzle and a group, of identifier 0."""

    inputs: np.ndarray
    labels: np.ndarray
    puzzle_identifiers: np.ndarray | None = None
    puzzle_indices: np.ndarray | None = None
    group_indices: np.ndarray | None = None
    sets: Sequence[str] | np.ndarray | None = None


def write(
    folder: Path, splits: Mapping[str, Split], vocabulary: int, names: Sequence[str] = ("<blank>",), pad: int = 0
) -> None:
    """Writes splits such as {"train": ..., "test": ...} and the identifiers' `names`; labels of `pad` aren't judged."""
    for name, split in splits.items():
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        puzzles = np.arange(len(split.inputs) + 1) if split.puzzle_indices is None else split.puzzle_indices
        own = np.zeros(len(puzzles) - 1) if split.puzzle_identifiers is None else split.puzzle_identifiers
        groups = np.arange(len(puzzles)) if split.group_indices is None else split.group_indices
        arrays = {"inputs": split.inputs, "labels": split.labels} | {
            key: np.asarray(value, np.int32)
            for key, value in zip(FIELDS[2:], (own, puzzles, groups), strict=True)
        }  # fmt: skip
        if split.sets is not None:
            arrays["sets"] = np.asarray(split.sets)
        (place / "all__sets.npy").unlink(missing_ok=True)  # of an earlier build
        for key, value in arrays.items():
            np.save(place / f"all__{key}.npy", value)
        meta = {
            "pad_id": pad, "ignore_label_id": pad, "blank_identifier_id": 0, "vocab_size": vocabulary,
            "seq_len": split.inputs.shape[1], "num_puzzle_identifiers": len(names), "total_groups": len(groups) - 1,
            "mean_puzzle_examples": len(split.inputs) / max(1, len(puzzles) - 1), "total_puzzles": len(puzzles) - 1,
            "sets": ["all"],
        }  # fmt: skip
        (place / "dataset.json").write_text(json.dumps(meta) + "\n")
    (folder / "identifiers.json").write_text(json.dumps(list(names)) + "\n")


def load(place: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """dataset.json of FOLDER/train or FOLDER/test and its arrays by FIELDS, the examples as memory maps, maybe "sets".

    UsageError where something is missing or doesn't fit together.
    """
    try:
        meta = json.loads((place / "dataset.json").read_text())
        missing = [key for key in NEEDED if key not in meta]
        if missing or len(meta["sets"]) != 1:
            raise UsageError(f"{place}/dataset.json needs {', '.join(NEEDED)} with one name in sets, got {meta}.")
        files = {key: place / f"{meta['sets'][0]}__{key}.npy" for key in (*FIELDS, "sets")}
        if not files["sets"].exists():
            del files["sets"]
        arrays = {key: np.load(file, mmap_mode="r" if key in FIELDS[:2] else None) for key, file in files.items()}
    except (OSError, ValueError) as error:  # ValueError: no JSON, no .npy
        raise UsageError(f"can't read the puzzles in {place}: {error}") from error
    _check(place, meta, arrays)
    return meta, arrays


def _check(place: Path, meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    inputs, labels, own, puzzles, groups = (arrays[key] for key in FIELDS)
    shape = (len(inputs), meta["seq_len"])
    if not len(inputs) or inputs.shape != shape or labels.shape != shape:
        raise UsageError(
            f"{place}: inputs and labels must be (N, {meta['seq_len']}), N from 1, got {inputs.shape}, {labels.shape}."
        )
    for name, starts, end in (("puzzle_indices", puzzles, len(inputs)), ("group_indices", groups, len(own))):
        if len(starts) < 2 or starts[0] != 0 or starts[-1] != end or (np.diff(starts) < 1).any():
            raise UsageError(f"{place}: {name} must rise from 0 to {end}, got {starts[:3]} ... {starts[-1:]}.")
    if len(own) != len(puzzles) - 1 or own.min() < 0 or own.max() >= meta["num_puzzle_identifiers"]:
        raise UsageError(
            f"{place}: puzzle_identifiers must be {len(puzzles) - 1} numbers from 0 to below "
            f"{meta['num_puzzle_identifiers']}, got {len(own)} from {own.min()} to {own.max()}."
        )
    if "sets" in arrays and len(arrays["sets"]) != len(inputs):
        raise UsageError(f"{place}: sets must name {len(inputs)} examples, got {len(arrays['sets'])}.")
