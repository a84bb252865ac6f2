"""Pickles as data: pandas' own frames, arrays by every protocol, and nothing of a hostile file runs."""

import base64
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

import dataloaders.pickles as pickles
from dataloaders.datasets.pickle_file import PickleDataset
from dataloaders.pickles import Refused, read_pickle
from dataloaders.pipeline import Pipeline
from runtime.errors import UsageError

FRAMES = json.loads(Path(__file__).with_name("fixtures_frames.json").read_text())


def written(folder, content, protocol=4):
    path = folder / "data.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return str(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pandas_frame_gives_its_columns(tmp_path, protocol):
    data = PickleDataset(written(tmp_path, base64.b64decode(FRAMES[f"protocol{protocol}"])))
    assert len(data) == 3 and data.parent_path == str(tmp_path)
    assert data[1] == {"x": 2.5, "path": "b.png", "y": 2, "v": 5, "ok": False}
    assert data["y"].dtype == np.int32 and type(data["x"]) is np.ndarray
    (batch,) = Pipeline(eval_data=data, batch_size=3).batches("eval")
    assert batch["path"].tolist() == ["a.png", "b.png", "c.png"] and batch["x"].dtype == np.float32


def test_a_frame_of_pandas_3_gives_its_strings(tmp_path):
    data = PickleDataset(written(tmp_path, base64.b64decode(FRAMES["pandas3"])))
    assert [data[i] for i in (0, 2)] == [{"x": 1.5, "path": "a.png", "y": 1}, {"x": 3.5, "path": "c.png", "y": 0}]


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol_come_back(protocol):
    given = {
        "a": np.arange(6.0).reshape(2, 3).T, "big": np.arange(3, dtype=">i2"), "text": np.array(["q", "rr"]),
        "many": np.array([np.ones(2), None], object), "n": [np.float32(2), 3, {"k": (1, b"x")}], "s": {1, 2},
    }  # fmt: skip
    got = read_pickle(pickle.dumps(given, protocol))
    assert got["n"] == given["n"] and got["s"] == {1, 2} and got["many"][1] is None
    for name in ("a", "big", "text"):
        np.testing.assert_array_equal(got[name], given[name])
        assert type(got[name]) is np.ndarray and got[name].dtype.kind == given[name].dtype.kind
    assert type(got["many"][0]) is np.ndarray


def test_rows_and_columns_are_both_taken(tmp_path):
    rows = [{"x": np.ones(2) * i, "y": i} for i in range(3)]
    assert PickleDataset(written(tmp_path, rows))[2]["x"].tolist() == [2, 2]
    assert PickleDataset(written(tmp_path, {"y": [4, 5]}))["y"] == [4, 5]
    for wrong in ([1, 2], {"y": 3}, {3: [1]}, [{"a": 1}, {"b": 1}]):
        with pytest.raises(UsageError, match="needed: a pandas frame, columns by name"):
            PickleDataset(written(tmp_path, wrong))
    with pytest.raises(UsageError, match="no whole pickle"):
        PickleDataset(written(tmp_path, pickle.dumps({"y": [4, 5]})[:-4]))
    with pytest.raises(UsageError, match="no file"):
        PickleDataset(str(tmp_path / "none.pkl"))


class Command:
    """Runs a shell command when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(target):
    touch = f"touch {target}"
    yield pickle.dumps({"x": Command(os.system, touch)}), "posix.system"
    yield pickle.dumps({"x": Command(eval, f"open({str(target)!r}, 'w')")}), "builtins.eval"
    yield pickle.dumps({"x": Command(getattr, "", "join")}), "builtins.getattr"
    yield f"cos\nsystem\n(S'{touch}'\ntR.".encode(), "os.system"
    yield f"(S'{touch}'\nios\nsystem\n.".encode(), "os.system"
    yield f"cdataloaders.pickles\nos.system\n(S'{touch}'\ntR.".encode(), "dataloaders.pickles.os.system"
    yield b"cnumpy\nload\n(S'x.npy'\nI00\nI01\ntR.", "numpy.load"
    yield base64.b64decode(FRAMES["dates"]), "pandas.core.arrays.datetimes.DatetimeArray"


def test_a_hostile_pickle_is_refused_by_name_and_runs_nothing(tmp_path):
    target = tmp_path / "ran"
    for content, name in hostile(target):
        with pytest.raises(UsageError, match=f"it asks for {name}"):
            PickleDataset(written(tmp_path, content))
        assert not target.exists()
    pickle.loads(next(hostile(target))[0])
    assert target.exists()  # the same bytes do run with pickle itself


def test_neither_types_nor_stand_ins_can_be_forged():
    def kind(text, state):
        return b"cnumpy\ndtype\n(S'" + text + b"'\ntR" + state

    for text in (b"V8", b"M8", b"O8,f4", b"(3)f8"):
        with pytest.raises(Refused, match="array type"):
            read_pickle(kind(text, b"."))
    with pytest.raises(Refused, match="structured"):  # version, order, no subarray, names, no fields
        read_pickle(kind(b"f8", b"(I3\nS'<'\nN(S'a'\ntNtb."))
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    filled = b"(I1\n(I%d\nt" + kind(b"f8", b"") + b"I00\nS'12345678'\ntb"
    assert read_pickle(array + filled % 1 + b".", "latin1").shape == (1,)
    with pytest.raises(Exception, match="size"):
        read_pickle(array + filled % 1000 + b".", "latin1")
    with pytest.raises(Refused, match="twice"):
        read_pickle(array + filled % 1 + filled % 1 + b".", "latin1")
    before = dict(vars(pickles))
    for name in (b"cnumpy\ndtype\n", b"c_codecs\nencode\n", b"cpandas.core.internals.managers\nBlockManager\n"):
        with pytest.raises(Refused, match="changes a function"):
            read_pickle(name + b"(N(S'__call__'\nS'x'\ndtb.")
    with pytest.raises(Refused, match="encoding 'zlib'"):
        read_pickle(b"c_codecs\nencode\n(Vx\nVzlib\ntR.")
    assert dict(vars(pickles)) == before
