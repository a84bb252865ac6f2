"""Confusion matrices and captioned images say what they were given."""

import numpy as np
import pytest
from PIL import Image

from visualizers import classes


@pytest.fixture
def figures(monkeypatch):
    """The figures that would have been written."""
    kept = []
    save = classes.save_figure
    monkeypatch.setattr(classes, "save_figure", lambda figure, path: kept.append(figure) or save(figure, path))
    return kept


def test_a_confusion_matrix_has_its_counts_and_the_shares_of_rows(tmp_path, figures):
    counts = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 8]])
    path = classes.plot_confusion(counts, tmp_path / "c.png", "title")
    axis = figures[0].axes[0]
    written = {tuple(map(int, text.get_position())): text.get_text() for text in axis.texts}
    assert written == {(0, 0): "3", (1, 0): "1", (0, 2): "2", (2, 2): "8"}  # x is the predicted class
    shares = axis.images[0].get_array()
    np.testing.assert_allclose(shares, [[0.75, 0.25, 0], [0, 0, 0], [0.2, 0, 0.8]])
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_title()) == ("predicted class", "true class", "title")
    assert min(Image.open(path).size) > 400
    classes.plot_confusion(np.eye(30), tmp_path / "many.png")
    assert not figures[1].axes[0].texts


@pytest.mark.parametrize("channels", [1, 3])
def test_captions_stand_above_their_images_and_heat_below(tmp_path, figures, channels):
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, channels), np.uint8)
    heat = np.linspace(0, 1, 5)[:, None, None] * np.ones((1, 4, 4))
    classes.save_captioned(images, list("abcde"), tmp_path / "i.png", heat, columns=3)
    axes = np.array(figures[0].axes).reshape(4, 3)
    for index, caption in enumerate("abcde"):
        row, column = divmod(index, 3)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        assert above.get_title() == caption and (above.images[0].get_array() == index).all()
        np.testing.assert_allclose(below.images[0].get_array(), heat[index])
    assert not axes[2, 2].images and not axes[3, 2].images
    classes.save_captioned(images, list("abcde"), tmp_path / "plain.png")
    assert len(figures[1].axes) == 5
