"""Ready data sets from files in their own formats, made here; where they are missing, where to get them."""

import gzip
import pickle

import numpy as np
import pytest
from scipy.io import savemat

from dataloaders.cifar_variants import Cifair10, Cifar100
from dataloaders.datasets.loaders import cifar100, digits, svhn_cropped, usps
from runtime.errors import UsageError


def batch(folder, name, labels, count=4):
    folder.mkdir(exist_ok=True, parents=True)
    pixels = np.arange(count * 3072).reshape(count, 3072).astype(np.uint8)
    (folder / name).write_bytes(pickle.dumps({b"data": pixels, **labels}, 2))


def test_cifars_relatives_are_read_from_their_files(tmp_path):
    fine, coarse = list(range(96, 100)), [0, 5, 19, 2]
    for part in ("train", "test"):
        batch(tmp_path / "cifar-100-python", part, {b"fine_labels": fine, b"coarse_labels": coarse})
    train, test = cifar100.load_data(str(tmp_path), label_key="label", label_mode="coarse")
    assert train["x"].shape == (4, 32, 32, 3) and test["label"].tolist() == coarse
    assert train[1]["x"][0, 2].tolist() == [(3072 + 2) % 256, (3072 + 1026) % 256, (3072 + 2050) % 256]
    assert Cifar100(str(tmp_path)).classes == 100
    for i in range(1, 6):
        batch(tmp_path / "ciFAIR-10", f"data_batch_{i}", {b"labels": [1, 2, 3, i]})
    assert Cifair10(str(tmp_path)).arrays["label"].tolist()[3::4] == [1, 2, 3, 4, 5]
    with pytest.raises(UsageError, match="ciFAIR-10 is missing: extract ciFAIR-10.zip .from https"):
        Cifair10(str(tmp_path), "test")
    with pytest.raises(UsageError, match="label_mode must be fine or coarse"):
        cifar100.load_data(str(tmp_path), label_mode="all")
    assert [len(part) for part in digits.load_data()] == [1500, 297]


def test_house_numbers_and_usps_are_read_from_their_files(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(32, 32, 3, 4), dtype=np.uint8)
    for part in ("train", "test"):
        savemat(tmp_path / f"{part}_32x32.mat", {"X": pixels, "y": np.array([[1], [9], [10], [3]])})
        grey = np.linspace(-1, 1, 256)
        lines = [f"{label}.0000 {' '.join(f'{v:.3f}' for v in values)}" for label, values in ((6, grey), (0, -grey))]
        (tmp_path / f"zip.{part}.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    train, test = svhn_cropped.load_data(str(tmp_path))
    assert test["y"].tolist() == [1, 9, 0, 3]
    np.testing.assert_array_equal(train["x"][2], pixels[..., 2])
    train, test = usps.load_data(str(tmp_path))
    assert train["y"].tolist() == [6, 0] and test["x"].shape == (2, 16, 16, 1)
    assert np.abs(train["x"][0].reshape(-1).astype(int) - np.arange(256)).max() <= 1
    (tmp_path / "zip.test.gz").write_bytes(gzip.compress(b"6 0.5\n"))
    (tmp_path / "test_32x32.mat").write_bytes(b"nothing")
    for loader, message in ((usps, "lines of 2 numbers"), (svhn_cropped, "no file of SVHN's")):
        with pytest.raises(UsageError, match=message):
            loader.load_data(str(tmp_path))
        with pytest.raises(UsageError, match="is missing: put"):
            loader.load_data(str(tmp_path / "none"))
