from collections import Counter
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from dataloaders.datasets.composed import CombinedDataset, ExtendDataset, InterleaveDataset
from dataloaders.datasets.csv_file import CSVDataset
from dataloaders.datasets.folders import DirDataset, LabeledDirDataset, SiameseDirDataset
from dataloaders.datasets.loaders import as_dataset
from dataloaders.datasets.rows import NumpyDataset
from dataloaders.ops.files import ReadImage
from dataloaders.pipeline import Pipeline
from dataloaders.source import ImageSource
from runtime.errors import UsageError


def numbers(count, offset=0):
    return NumpyDataset({"x": np.arange(count) + offset, "y": np.arange(count) % 4 // 3})


def folder(root, **counts):
    for name, count in counts.items():
        (root / name).mkdir()
        for i in range(count):
            Image.new("RGB", (3, 2), (i, 10, 20)).save(root / name / f"{i}.png")
    return str(root)


@pytest.mark.parametrize("stratify", [None, "y"])
@pytest.mark.parametrize("seed", [None, 3])
def test_split_moves_each_row_once(seed, stratify):
    whole, again = numbers(40), numbers(40)
    tenth, eight = whole.split(0.1, 8, seed=seed, stratify=stratify)
    assert [len(tenth), len(eight), len(whole)] == [4, 8, 28]
    assert sorted([*tenth["x"], *eight["x"], *whole["x"]]) == list(range(40))
    if stratify:
        assert sum(tenth["y"]) == 1 and sum(eight["y"]) == 2
    other, _ = again.split(0.1, 8, seed=seed, stratify=stratify)
    assert other.fingerprint() == tenth.fingerprint() != whole.fingerprint()
    assert list(numbers(9).split([7, 2])["x"]) == [7, 2]
    assert len(numbers(25).split(0.1)) == 3  # shares are rounded up
    with pytest.raises(UsageError, match="asks 10 rows; needed: 1 to 9"):
        numbers(9).split(10)


def test_csv_columns_have_types(tmp_path):
    (tmp_path / "a.csv").write_text("n,v,w\n1,0.5,a\n2,,b\n")
    data = CSVDataset(str(tmp_path / "a.csv"))
    assert data["n"].dtype == np.int64 and data["v"].dtype == np.float32 and np.isnan(data["v"][1])
    assert data[1]["w"] == "b"
    with pytest.raises(UsageError, match="no column 'z'; it has n, v, w"):
        data["z"]
    (tmp_path / "a.csv").write_text("n,v\n1\n")
    with pytest.raises(UsageError, match="row 2: 1 fields; needed: 2"):
        CSVDataset(str(tmp_path / "a.csv"))
    with pytest.raises(UsageError, match="no file"):
        CSVDataset(str(tmp_path / "b.csv"))


def test_csv_from_a_spreadsheet(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes("\ufeffx,n\r\n1,\u00fc\r\n\r\n2,b\r\n\r\n".encode())
    assert [(row["x"], str(row["n"])) for row in CSVDataset(str(file))] == [(1, "\u00fc"), (2, "b")]
    for content, said in ((b"x,n\n1,\xe4\n", "no UTF-8 text"), (b"x,x\n1,2\n", "several columns 'x'")):
        file.write_bytes(content)
        with pytest.raises(UsageError, match=said):
            CSVDataset(str(file))


def test_folders_give_paths_and_labels_and_are_read(tmp_path):
    root = folder(tmp_path, dog=3, cat=2)
    data = LabeledDirDataset(root)
    assert data.mapping == {"cat": 0, "dog": 1} and list(data["y"]) == [0, 0, 1, 1, 1]
    assert len(DirDataset(root)) == 5
    (batch,) = islice(Pipeline(eval_data=data, batch_size=5, ops=[ReadImage("x", "x")]).batches("eval"), 1)
    assert batch["x"].shape == (5, 2, 3, 3) and batch["x"][4, 0, 0].tolist() == [2, 10, 20]
    with pytest.raises(UsageError, match="no files that end in .jpg"):
        DirDataset(root, file_extension=".jpg")
    with pytest.raises(UsageError, match="there is no folder"):
        DirDataset(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="lacks the folders dog"):
        LabeledDirDataset(root, label_mapping={"cat": 0})


def test_pairs_match_as_often_as_asked(tmp_path):
    data = SiameseDirDataset(folder(tmp_path, a=5, b=5), percent_matching_data=0.3)
    assert data[3] == data[3]
    rng = np.random.default_rng(0)
    pairs = [data.sample(i % 10, rng) for i in range(1000)]
    for pair in pairs:
        left, right = (pair[key].split("/")[-2:] for key in ("x_a", "x_b"))
        assert left != right and (left[0] == right[0]) == pair["y"]
    assert 0.25 < np.mean([pair["y"] for pair in pairs]) < 0.35


def test_combined_and_extended():
    both = CombinedDataset([numbers(3), numbers(2, 10)])
    assert [row["x"] for row in both] == [0, 1, 2, 10, 11]
    with pytest.raises(UsageError, match="the same keys"):
        CombinedDataset([numbers(3), NumpyDataset({"z": [1]})])
    iterator = Pipeline(ExtendDataset(numbers(3), 8), batch_size=4).batches("train")
    seen = Counter(int(x) for batch in islice(iterator, 2) for x in batch["x"])
    assert sorted(seen.values()) == [2, 3, 3]
    short = [frozenset(ExtendDataset(numbers(9), 2).order(np.random.default_rng(i))) for i in range(9)]
    assert len(set(short)) > 1 and all(len(rows) == 2 for rows in short)


def test_interleaved_batches_follow_the_pattern():
    data = InterleaveDataset({"a": numbers(4), "b": numbers(9, 100)}, ["a", "b", "b"])
    pipeline = Pipeline(data, batch_size=2)
    assert pipeline.steps_per_epoch == 6
    batches = list(islice(pipeline.batches("train"), 12))
    assert [bool(batch["x"][0] >= 100) for batch in batches] == [False, True, True] * 4
    np.testing.assert_array_equal(next(pipeline.batches("train", 7))["x"], batches[7]["x"])
    with pytest.raises(UsageError, match="must name each"):
        InterleaveDataset([numbers(2), numbers(2)], [0, 0])


def test_a_source_becomes_a_numpy_dataset():
    images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    data = as_dataset(ImageSource(images, np.array([0, 2, 1])))
    assert data[1]["x"].dtype == np.uint8 and data[1]["y"] == 2 and data[1]["x"].shape == (2, 2, 1)
