"""The data's statistics are computed once per data set and method, and a bad file costs a sentence, not the run."""

import numpy as np
import pytest

from evaluation import statistics
from evaluation.fid import FeatureDistance
from tests.evaluation.fakes import FakePipeline, fake_run


class Sides:
    """The first two pixels; counts the images it has seen."""

    name = "sides"

    def __init__(self, version="1"):
        self.version, self.seen = version, 0

    def __call__(self, images):
        self.seen += len(images)
        return images.reshape(len(images), -1)[:, :2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "mlx-lab" / "statistics"


def judged(features=None, shape=(2, 2, 1), **settings):
    """The scores, and how many images the network saw."""
    features = features or Sides()
    scores = FeatureDistance(features, count=40, subset_size=20, **settings)(fake_run(FakePipeline(shape)))
    return scores, features.seen


def test_the_second_run_measures_its_samples_only(cache):
    first, seen = judged()
    assert seen == 3 * 40 and len(list(cache.iterdir())) == 1  # samples, held-out and training images
    assert judged() == (first, 40)


@pytest.mark.parametrize(
    "other",
    [{"features": Sides("2")}, {"shape": (2, 3, 1)}, {"seed": 1}, {"floor_pairs": 2}, {"metrics": ["kid"]},
     {"metrics": ["precision"], "neighbours": 2}, {"subsets": 7}, {"cache": False}],
    ids=lambda other: "-".join(other),
)  # fmt: skip
def test_another_method_or_data_set_is_measured_itself(other):
    judged()
    assert judged(**other)[1] > 40


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:100] + b"?" + b[101:]])
def test_a_damaged_file_is_made_anew_and_said(cache, damage, capsys):
    first, _ = judged()
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert judged() == (first, 120)
    error = capsys.readouterr().err
    assert "made anew" in error and error.count("\n") == 1
    assert judged() == (first, 40) and [p.name for p in cache.iterdir()] == [path.name]


def test_a_file_of_another_key_is_not_taken(cache):
    statistics.kept({"data": "a"}, lambda: (np.zeros((2, 2)), {}))
    statistics.kept({"data": "b"}, lambda: (np.ones((2, 2)), {"fd_floor": 1.0}))
    a, b = sorted(cache.iterdir())
    a.write_bytes(b.read_bytes())
    for name, value in (("a", 0), ("b", 1)):
        found, _ = statistics.kept({"data": name}, lambda value=value: (np.full((2, 2), value), {}))
        assert (found == value).all()


def test_a_cache_that_can_not_be_written_ends_nothing(tmp_path, capsys):
    (tmp_path / "mlx-lab").write_text("a file where the folder should be")
    assert judged()[1] == 120
    assert "not kept" in capsys.readouterr().err
