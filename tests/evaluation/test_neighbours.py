"""Neighbours against brute force, manifolds whose overlap is known, and samples that are copies."""

import numpy as np
import pytest

from evaluation.copying import Copying
from evaluation.neighbours import copied_share, nearest, precision_recall
from runtime.errors import UsageError
from tests.evaluation.fakes import FakePipeline, fake_run

RNG = np.random.default_rng(0)


def by_hand(x, y, k):
    """Precision by its definition: a loop over samples and balls."""
    radii = [np.sort(np.linalg.norm(y - row, axis=1))[k] for row in y]  # place 0 is the row itself
    inside = [any(np.linalg.norm(row - c) <= r for c, r in zip(y, radii, strict=True)) for row in x]
    return np.mean(inside)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_by_their_definition(k):
    x, y = RNG.standard_normal((40, 2)), RNG.standard_normal((50, 2)) * 0.7 + 0.5
    precision, recall = precision_recall(x, y, k)
    assert (precision, recall) == (by_hand(x, y, k), by_hand(y, x, k))
    assert 0.3 < precision < recall  # the two differ, so exchanging them would show


def test_precision_and_recall_of_half_the_modes():
    left, right = RNG.standard_normal((300, 8)), RNG.standard_normal((300, 8)) + 50
    data = np.concatenate([left, right])
    assert precision_recall(RNG.standard_normal((600, 8)), data)[1] < 0.5  # half the data is out of reach
    assert precision_recall(RNG.standard_normal((600, 8)) - 50, data) == (0, 0)
    assert precision_recall(data, data) == (1, 1)
    with pytest.raises(UsageError, match="k=3 need 4 rows a side, got 3 and 600"):
        precision_recall(data[:3], data)


def test_nearest_is_that_of_brute_force_over_chunks_and_far_from_the_origin(monkeypatch):
    monkeypatch.setattr("evaluation.neighbours.CHUNK", 64)
    x, among = RNG.standard_normal((20, 5)) + 100, RNG.standard_normal((300, 5)) + 100
    index, distances = nearest(x, among, 3)
    exact = np.linalg.norm(x[:, None] - among, axis=2)
    np.testing.assert_array_equal(index, np.argsort(exact, axis=1)[:, :3])
    np.testing.assert_allclose(distances, np.sort(exact, axis=1)[:, :3], rtol=1e-12)
    own, zero = nearest(among, among, 1)
    assert (own[:, 0] == np.arange(300)).all() and (zero == 0).all()
    with pytest.raises(UsageError, match="300 rows to find 301"):
        nearest(x, among, 301)


def test_copied_share():
    assert copied_share([[1, 3.1], [1, 2.9], [0, 1], [2, 2]], 1 / 3) == 0.5


class Fixed(FakePipeline):
    """Rows that are the same at every draw of all of them, as a data set's are."""

    def __init__(self):
        super().__init__((3,), {"train": 400, "eval": 100})
        self.rows = {mode: np.random.default_rng(i + 9).standard_normal((n, 3)).astype(np.float32)
                     for i, (mode, n) in enumerate({"train": 400, "eval": 100}.items())}  # fmt: skip

    def draw(self, mode, count, rng):
        return {"x": self.rows[mode][rng.permutation(len(self.rows[mode]))[:count]]}


class Copier(Fixed):
    """A source whose noise is training data, so that samples with shift 0 are copies."""

    def noise(self, count, rng):
        return self.rows["train"][:count]


def test_copies_are_found_and_held_out_data_are_none():
    scores = Copying(count=100)(fake_run(Copier()))
    assert list(scores) == ["copied_pixels_100", "nearest_pixels_100",
                            "copied_pixels_100_floor", "nearest_pixels_100_floor"]  # fmt: skip
    assert scores["copied_pixels_100"] == 1 and scores["nearest_pixels_100"] == 0
    assert scores["copied_pixels_100_floor"] < 0.2 and scores["nearest_pixels_100_floor"] > 0.1
    fresh = Copying(count=100, steps=[])(fake_run(Fixed()))
    assert fresh["copied_pixels_100"] < 0.2
    assert fresh["nearest_pixels_100"] == pytest.approx(fresh["nearest_pixels_100_floor"], rel=0.5)


def test_copying_without_held_out_data_has_no_floor_and_bad_counts_are_told():
    assert not any(name.endswith("floor") for name in Copying(count=200)(fake_run(Fixed())))
    Copying(train_count=400).check(Fixed())
    with pytest.raises(UsageError, match=r"2\.\.400, the training rows, got 401"):
        Copying(train_count=401).check(Fixed())
