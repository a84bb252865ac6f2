import json

import numpy as np
import pytest

from dataloaders.puzzle_files import FIELDS, Split, load, write
from runtime.errors import UsageError

INPUTS = np.arange(20, dtype=np.uint8).reshape(5, 4) % 6
LABELS = INPUTS[::-1].copy()
GROUPED = Split(INPUTS, LABELS, np.array([0, 2, 1]), np.array([0, 1, 3, 5]), np.array([0, 2, 3]), list("aabbb"))


def test_what_is_written_is_read(tmp_path):
    write(tmp_path, {"train": GROUPED, "test": Split(INPUTS, LABELS)}, 6, ["<blank>", "one", "two"])
    meta, arrays = load(tmp_path / "train")
    given = {"inputs": INPUTS, "labels": LABELS, "puzzle_identifiers": [0, 2, 1], "puzzle_indices": [0, 1, 3, 5],
             "group_indices": [0, 2, 3]}  # fmt: skip
    for key in FIELDS:
        assert arrays[key].tolist() == np.asarray(given[key]).tolist()
    assert arrays["inputs"].dtype == np.uint8 and isinstance(arrays["inputs"], np.memmap)
    assert arrays["sets"].tolist() == list("aabbb")
    assert meta == {"pad_id": 0, "ignore_label_id": 0, "blank_identifier_id": 0, "vocab_size": 6, "seq_len": 4,
                    "num_puzzle_identifiers": 3, "total_groups": 2, "mean_puzzle_examples": 5 / 3, "total_puzzles": 3,
                    "sets": ["all"]}  # fmt: skip
    assert json.loads((tmp_path / "identifiers.json").read_text()) == ["<blank>", "one", "two"]
    _, plain = load(tmp_path / "test")
    assert plain["puzzle_indices"].tolist() == plain["group_indices"].tolist() == [0, 1, 2, 3, 4, 5]
    assert plain["puzzle_identifiers"].tolist() == [0] * 5 and "sets" not in plain
    write(tmp_path, {"train": Split(INPUTS, LABELS)}, 6)  # a second build leaves no names of the first
    assert "sets" not in load(tmp_path / "train")[1]


def test_files_of_the_references_are_read(tmp_path):
    """int64 tokens, another name than all in `sets`, keys of theirs that we don't read, no identifiers.json."""
    meta = {"seq_len": 4, "vocab_size": 6, "pad_id": 0, "ignore_label_id": None, "blank_identifier_id": 0,
            "num_puzzle_identifiers": 1, "total_groups": 5, "mean_puzzle_examples": 1, "sets": ["easy"],
            "more": 1}  # fmt: skip
    for key, value in zip(FIELDS, (INPUTS, LABELS, np.zeros(5), np.arange(6), np.arange(6)), strict=True):
        np.save(tmp_path / f"easy__{key}.npy", value.astype(np.int64))
    (tmp_path / "dataset.json").write_text(json.dumps(meta))
    found, arrays = load(tmp_path)
    assert found["ignore_label_id"] is None and (arrays["labels"] == LABELS).all()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("inputs", INPUTS[:, :3], r"inputs and labels must be \(N, 4\), N from 1, got \(5, 3\), \(5, 4\)"),
        ("inputs", INPUTS[:0], r"got \(0, 4\)"),
        ("labels", LABELS[:4], r"got \(5, 4\), \(4, 4\)"),
        ("puzzle_indices", np.array([0, 1, 1, 5]), "puzzle_indices must rise from 0 to 5"),
        ("puzzle_indices", np.array([0, 1, 3, 4]), "puzzle_indices must rise from 0 to 5"),
        ("group_indices", np.array([1, 3]), "group_indices must rise from 0 to 3"),
        ("puzzle_identifiers", np.array([0, 3, 1]), "3 numbers from 0 to below 3, got 3 from 0 to 3"),
        ("puzzle_identifiers", np.array([0, -1, 1]), "got 3 from -1 to 1"),
        ("sets", np.array(["a"]), "sets must name 5 examples, got 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(key, value, message, tmp_path):
    write(tmp_path, {"train": GROUPED}, 6, ["<blank>", "one", "two"])
    np.save(tmp_path / f"train/all__{key}.npy", value)
    with pytest.raises(UsageError, match=message):
        load(tmp_path / "train")


def test_what_is_missing_or_broken_is_named(tmp_path):
    write(tmp_path, {"train": GROUPED}, 6, ["<blank>", "one", "two"])
    (tmp_path / "train/all__labels.npy").write_bytes(b"no array")
    with pytest.raises(UsageError, match="can't read the puzzles in .*train"):
        load(tmp_path / "train")
    (tmp_path / "train/all__labels.npy").unlink()
    with pytest.raises(UsageError, match="all__labels.npy"):
        load(tmp_path / "train")
    (tmp_path / "train/dataset.json").write_text('{"seq_len": 4}')
    with pytest.raises(UsageError, match="needs seq_len, vocab_size"):
        load(tmp_path / "train")
    (tmp_path / "train/dataset.json").write_text("{")
    with pytest.raises(UsageError, match="can't read"):
        load(tmp_path / "train")
