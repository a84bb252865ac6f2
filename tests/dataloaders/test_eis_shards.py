"""Spectra in files: the very rows that the generator draws, exactly as many, resumed as if never interrupted."""

import json

import numpy as np
import pytest

from dataloaders import eis_shards
from dataloaders.eis import Spectra
from dataloaders.eis_shards import StoredSpectra, write
from dataloaders.pipeline import Pipeline
from runtime.errors import UsageError

OPTIONS = {"size": 250, "topology": "parallel", "prior": "truths", "truths": 5, "points": [5, 9], "noise": [0.01, 0.02],
           "known": [0.5, 0.5], "rs": 50.0}  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(eis_shards, "CHUNK", 64)


def test_stored_rows_are_those_drawn_and_come_in_any_order(tmp_path, small):
    assert write(tmp_path / "data", OPTIONS, draws=3, part=100) == (250, 0)
    assert [np.load(p).shape for p in sorted((tmp_path / "data").glob("*.npy"))] == [(100, 57), (100, 57), (50, 57)]
    stored = StoredSpectra(str(tmp_path / "data"), **OPTIONS)
    assert len(stored) == 250 and stored.shape == (9, 4)
    source, want = Spectra(**OPTIONS), []
    for number, rows in enumerate((100, 100, 50)):
        rng = np.random.default_rng([3, number])
        want += [source.draw(min(64, rows - start), rng) for start in range(0, rows, 64)]
    indices = np.random.default_rng(0).permutation(250)[:77]
    found = stored.take(indices, np.random.default_rng(0))
    assert found.keys() == want[0].keys()
    for key, value in found.items():
        whole = np.concatenate([batch[key] for batch in want]).astype(np.float32)
        np.testing.assert_array_equal(value, whole[indices])
        assert value.flags["C_CONTIGUOUS"] and value.dtype == np.float32


def test_an_interrupted_writing_goes_on_and_ends_the_same(tmp_path, small):
    write(tmp_path / "whole", OPTIONS, part=100)
    write(tmp_path / "broken", OPTIONS, part=100)
    (tmp_path / "broken" / "00001.npy").rename(tmp_path / "broken" / "00001.partial")
    with pytest.raises(UsageError, match="lacks 1 of 3 parts, the first 00001.npy"):
        StoredSpectra(str(tmp_path / "broken"), **OPTIONS)
    assert write(tmp_path / "broken", OPTIONS, part=100) == (100, 150)
    for path in sorted((tmp_path / "whole").iterdir()):
        assert (tmp_path / "broken" / path.name).read_bytes() == path.read_bytes()
    assert len(list((tmp_path / "broken").iterdir())) == 4  # nothing partial is left


def test_other_data_are_not_overwritten_or_read_as_these(tmp_path):
    folder = tmp_path / "data"
    write(folder, OPTIONS)
    with pytest.raises(UsageError, match=r"other spectra \(rs 50.0 there, 10.0 asked for\)"):
        write(folder, OPTIONS | {"rs": 10.0})
    with pytest.raises(UsageError, match="draws 0 there, 1 asked for"):
        write(folder, OPTIONS, draws=1)
    with pytest.raises(UsageError, match="truths 5 there, 6 asked for"):
        StoredSpectra(str(folder), **OPTIONS | {"truths": 6})
    with pytest.raises(UsageError, match="there are no spectra in"):
        StoredSpectra(str(tmp_path / "none"), **OPTIONS)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files and no data.json"):
        write(tmp_path / "other", OPTIONS)
    with pytest.raises(UsageError, match="at least 1 row, got 0"):
        write(tmp_path / "new", OPTIONS, part=0)
    assert json.loads((folder / "data.json").read_text())["rows"] == 250


def test_an_epoch_sees_every_stored_row_once(tmp_path, small):
    write(tmp_path, OPTIONS, part=60)
    pipeline = Pipeline(train_data=StoredSpectra(str(tmp_path), **OPTIONS), batch_size=50)
    batches = [batch for batch, _ in zip(pipeline.batches("train", 0), range(5), strict=False)]
    seen = np.concatenate([batch["residual"] for batch in batches])
    assert len(np.unique(seen)) == 250
