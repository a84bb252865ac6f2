"""Attention maps: what is drawn where."""

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UsageError
from visualizers import attention
from visualizers.attention import overlays, patches_of, visualize_attention

RNG = np.random.default_rng(0)


def drawn(monkeypatch, tmp_path, *args, **kwargs):
    """The figure of a picture."""
    kept, save = [], attention.save_figure
    monkeypatch.setattr(attention, "save_figure", lambda figure, path: (kept.append(figure), save(figure, path))[1])
    path = visualize_attention(*args, path=tmp_path / "a.png", **kwargs)
    assert min(Image.open(path).size) > 100
    return kept[0]


def test_a_map_for_each_head_with_its_tokens(monkeypatch, tmp_path):
    weights = RNG.dirichlet(np.ones(4), (5, 3))
    figure = drawn(monkeypatch, tmp_path, weights, tokens=["a", "$b$ x", "c\n"], sources=list("wxyz"))
    maps = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in maps] == [f"head {n}" for n in range(5)]
    for axis, own in zip(maps, weights, strict=True):
        assert (axis.images[0].get_array() == own).all()
        assert [text.get_text() for text in axis.get_yticklabels()] == ["a", r"\$b\$␣x", "c↵"]
        assert [text.get_text() for text in axis.get_xticklabels()] == list("wxyz")


def test_one_head_whose_tokens_look_at_each_other(monkeypatch, tmp_path):
    figure = drawn(monkeypatch, tmp_path, np.eye(3), tokens=["a", "b", "c"])
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["a", "b", "c"]


def test_maps_over_an_image_lie_where_the_patches_are(tmp_path):
    weights = np.zeros((2, 7, 7))
    weights[0, 3, 1 + 2] = 0.8  # the first row's third patch of 2 x 3, after a class token
    weights[1, :, 1 + 3] = 0.5  # everybody looks at the second row's first
    weights[:, :, 0] = 0.9  # at the class token, which is in no map
    image = RNG.uniform(-1, 1, (8, 12, 3))
    whole, first, second = overlays(weights, image, None, 3)
    assert whole.heat is None and whole.images is not None and whole.images.shape == (1, 8, 12, 3)
    expected = np.zeros((8, 12))
    expected[:4, 8:] = 1
    assert first.heat is not None and (first.heat[0] == expected).all() and first.title == "head 0, top 0.8"
    expected = np.zeros((8, 12))
    expected[4:, :4] = 1
    assert second.heat is not None and (second.heat[0] == expected).all()
    mean = overlays(weights, image, (2, 3), None)[1]
    assert mean.title == f"head 0, top {0.8 / 7:.2g}"
    gray = visualize_attention(weights, tmp_path / "over.png", image=image[..., 0], query=3)
    assert min(Image.open(gray).size) > 100


def test_grids_of_square_patches():
    assert patches_of(16, (28, 28)) == (4, 4) and patches_of(17, (28, 28)) == (4, 4)
    assert patches_of(197, (224, 224)) == (14, 14) and patches_of(6, (8, 12)) == (2, 3)
    with pytest.raises(UsageError, match="30 tokens are no grid .* 7 x 13; give grid="):
        patches_of(30, (7, 13))


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        (np.zeros(3), {}, r"shape \(heads, T, T'\) or \(T, T'\), got \(3,\)"),
        (np.zeros((0, 2, 2)), {}, "got"),
        (np.eye(3), {"tokens": ["a"]}, "tokens must be 3 labels, got 1"),
        (np.eye(4), {"image": np.zeros((4, 4)), "query": 4}, "query must be a token from 0 to 3, got 4"),
        (np.eye(4), {"image": np.zeros((4, 4)), "grid": (3, 3)}, "grid must have at most 4 patches, got 3 x 3"),
        (np.eye(4), {"image": np.zeros(4)}, "image must have shape"),
    ],
)
def test_what_does_not_fit_is_refused(weights, options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        visualize_attention(weights, tmp_path / "a.png", **options)
