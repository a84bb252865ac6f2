"""Reconstructions lie below what they are reconstructions of."""

from types import SimpleNamespace

import numpy as np
from PIL import Image

from tests.evaluation.fakes import FakePipeline
from visualizers.reconstructions import ReconstructionPicture, interleaved


def test_rows_come_in_turn_also_where_the_last_is_short():
    above, below = np.arange(5), 10 + np.arange(5)
    assert interleaved(above, below, 2).tolist() == [0, 1, 10, 11, 2, 3, 12, 13, 4, 14]


def test_the_picture_shows_images_above_what_the_network_makes_of_them(tmp_path):
    pipeline = FakePipeline(shape=(8, 8, 1), rows={"train": 20, "eval": 4})
    run = SimpleNamespace(pipeline=pipeline, model=lambda x: (-x, None, None))
    (path,) = ReconstructionPicture(images=8)(run, tmp_path, "step_1")
    assert path == tmp_path / "step_1.png" and pipeline.drawn == [("train", 8)]  # too few are held out
    page = np.asarray(Image.open(path)).astype(int)
    above, below = page[2:66], page[68:132]  # eight times as large, gaps of two pixels
    assert page.shape == (134, 8 * 66 + 2, 3) and above.std() > 20
    assert np.abs(above[:, 2:] + below[:, 2:] - 255)[:, :62].max() <= 1  # x and -x
