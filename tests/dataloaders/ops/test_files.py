import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from dataloaders.ops.files import ReadImage, ReadMat
from runtime.errors import UsageError

STATE = {"mode": "train", "epoch": 0, "ds_id": "", "rng": np.random.default_rng(0)}


def test_images_are_read(tmp_path):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(ReadImage("p", "x", parent_path=str(tmp_path))({"p": "a.png"}, STATE)["x"], pixels)
    found = ReadImage(["p", "p"], ["x", "y"])({"p": tmp_path / "a.png"}, STATE)
    assert np.array_equal(found["x"], pixels) and np.array_equal(found["y"], pixels)
    luma = (pixels @ [0.299, 0.587, 0.114])[..., None]
    for flag in ("gray", "grey", 0):
        grey = ReadImage("p", "x", color_flag=flag)({"p": tmp_path / "a.png"}, STATE)["x"]
        assert grey.dtype == np.uint8 and np.abs(grey - luma).max() <= 1
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(UsageError, match="b.png cannot be read as an image"):
        ReadImage("p", "x")({"p": tmp_path / "b.png"}, STATE)
    with pytest.raises(UsageError, match="got 'rgb'"):
        ReadImage("p", "x", color_flag="rgb")


def test_matlab_files_are_read(tmp_path):
    cube, label = np.arange(24.0).reshape(2, 3, 4), np.array([[3]])
    savemat(tmp_path / "a.mat", {"cube": cube, "label": label})
    found = ReadMat("p", ["cube", "label"], parent_path=str(tmp_path))({"p": "a.mat"}, STATE)
    assert np.array_equal(found["cube"], cube) and np.array_equal(found["label"], label)
    named = ReadMat("p", ["x", "y"], mat_keys=["label", "cube"])({"p": tmp_path / "a.mat"}, STATE)
    assert np.array_equal(named["y"], cube) and np.array_equal(named["x"], label)
    (tmp_path / "b.mat").write_bytes(b"no mat file" * 20)
    for run, message in (
        (lambda: ReadMat("p", "mask")({"p": tmp_path / "a.mat"}, STATE), "has no mask; it has cube, label"),
        (lambda: ReadMat("p", "x")({"p": tmp_path / "b.mat"}, STATE), "b.mat cannot be read as a MATLAB file"),
        (lambda: ReadMat("p", "x")({"p": tmp_path / "c.mat"}, STATE), "c.mat cannot be read as a MATLAB file"),
        (lambda: ReadMat("p", "x", ["a", "b"]), "as many mat_keys as outputs"),
    ):
        with pytest.raises(UsageError, match=message):
            run()
