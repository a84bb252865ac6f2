"""The benchmark of embedding tables: both variants train alike, and what it prints."""

import json

import numpy as np
import pytest

from benchmarks.embedding_table import main, trainer
from benchmarks.step_mlx import advance


def test_table_and_dense_embedding_train_alike_without_decay():
    (table, outside), (leaf, dense) = (trainer(12, 8, variant, 4, decay=0.0) for variant in (False, True))
    for estimator in (outside, dense):
        advance(estimator, 20)
    assert table.table is not None and leaf.table is None
    rows = np.array(table.table.state["rows"])
    np.testing.assert_allclose(rows, np.array(leaf.embedding), atol=1e-6)
    assert rows.any(axis=1).all()


def test_a_line_a_size_and_variant(capsys):
    main(["--device", "cpu", "--counts", "5", "50", "--batches", "3", "--width", "4", "--seconds", "0",
          "--dense-to", "5"])  # fmt: skip
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["variant"], line["rows"]) for line in lines] == [("outside", 5), ("dense", 5), ("outside", 50)]
    assert all(line["median_ms"] > 0 and line["batch"] == 3 and line["width"] == 4 for line in lines)


def test_a_device_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--device", "abacus"])
    assert stopped.value.code == 2 and "abacus" in capsys.readouterr().err
