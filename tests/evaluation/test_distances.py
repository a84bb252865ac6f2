from types import SimpleNamespace

import numpy as np
import pytest

from evaluation.distances import PointDistances, energy_distance, mmd, sliced_wasserstein2, wasserstein2
from evaluation.evaluator import counted
from runtime.errors import UsageError
from tests.evaluation.fakes import FakePipeline, fake_run

RNG = np.random.default_rng(0)


def cloud(n, d=3, shift=0.0, seed=0):
    return (np.random.default_rng(seed).standard_normal((n, d)) + shift).astype(np.float32)


def mean_distance(x, y):
    return np.mean([np.linalg.norm(a - b) for a in x.astype(np.float64) for b in y.astype(np.float64)])


def test_energy_distance_is_the_v_statistic_of_its_definition():
    x, y = cloud(40, seed=1), cloud(30, shift=0.5, seed=2)
    expected = 2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y)
    assert energy_distance(x, y) == pytest.approx(expected, abs=1e-7)


def test_energy_distance_across_blocks_far_from_the_origin():
    # More than one block of rows, and an offset that would cost all digits if it were not removed.
    x, y = cloud(700, 2, seed=1).astype(np.float64), cloud(1300, 2, 0.3, seed=2).astype(np.float64)
    assert energy_distance(x + 1e6, y + 1e6) == pytest.approx(energy_distance(x, y), abs=1e-7)


def test_energy_distance_of_one_dimension_is_twice_the_squared_cdf_distance():
    x, y = cloud(200, 1, seed=3), cloud(300, 1, 0.4, seed=4)
    grid = np.sort(np.concatenate([x, y]).ravel().astype(np.float64))
    cdf = [np.searchsorted(np.sort(points.ravel()), grid[:-1], side="right") / len(points) for points in (x, y)]
    expected = 2 * np.sum((cdf[0] - cdf[1]) ** 2 * np.diff(grid))
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_exact_transport_equals_an_independent_assignment():
    from scipy.optimize import linear_sum_assignment

    x, y = cloud(60, seed=5), cloud(60, shift=1, seed=6)
    cost = ((x[:, None].astype(np.float64) - y[None]) ** 2).sum(-1)
    expected = cost[linear_sum_assignment(cost)].mean()
    found = wasserstein2(x, y)
    assert found.squared_cost == pytest.approx(expected, rel=1e-9)
    assert found.distance == pytest.approx(np.sqrt(expected), rel=1e-9)


def test_exact_transport_of_a_translation_is_its_length():
    x = cloud(50, 2)
    assert wasserstein2(x, x[::-1] + np.float32([3, 4])).distance == pytest.approx(5, rel=1e-6)


def test_sliced_distance_of_a_translation():
    # The mean square of a unit direction's component is 1/d, so W2 of a shift by s is |s| / sqrt(d).
    x = cloud(100, 2)
    found = sliced_wasserstein2(x, x[::-1] + np.float32([3, 4]), 20_000, np.random.default_rng(0))
    assert found == pytest.approx(5 / np.sqrt(2), rel=0.02)


def test_sliced_distance_in_one_dimension_is_exact_transport():
    x, y = cloud(80, 1, seed=1), cloud(80, 1, 0.5, seed=2)
    assert sliced_wasserstein2(x, y, 3, RNG) == pytest.approx(wasserstein2(x, y).distance, rel=1e-6)


def test_mmd_of_its_definition():
    x, y, widths = cloud(25, seed=1), cloud(30, shift=0.5, seed=2), (0.5, 2.0)

    def kernel(a, b):
        squared = ((a[:, None].astype(np.float64) - b[None]) ** 2).sum(-1)
        return np.mean([np.exp(-squared / (2 * width**2)) for width in widths], axis=0)

    off = [kernel(z, z)[~np.eye(len(z), dtype=bool)].mean() for z in (x, y)]
    assert mmd(x, y, widths) == pytest.approx(sum(off) - 2 * kernel(x, y).mean(), abs=1e-6)


def test_mmd_of_two_gaussians_in_closed_form():
    # E k(x, y) of N(0, I), N(m, I) in d dimensions: (b^2 / (b^2 + 2))^(d/2) exp(-|m|^2 / (2 (b^2 + 2))).
    width, d, shift = 1.0, 2, 1.0
    scale = (width**2 / (width**2 + 2)) ** (d / 2)
    expected = 2 * scale * (1 - np.exp(-d * shift**2 / (2 * (width**2 + 2))))
    assert mmd(cloud(4000, d, seed=1), cloud(4000, d, shift, seed=2), (width,)) == pytest.approx(
        expected, abs=0.025
    )  # its standard deviation is .01


def test_shapes_that_do_not_fit():
    with pytest.raises(UsageError, match=r"\(5, 2\) and \(5, 3\)"):
        energy_distance(cloud(5, 2), cloud(5, 3))
    with pytest.raises(UsageError, match="5 and 6"):
        sliced_wasserstein2(cloud(5), cloud(6), 4, RNG)


ALL = ("energy_distance", "sliced_w2", "w2", "emd", "mmd2_rbf")


def test_evaluator_reports_each_metric_and_its_floor():
    scores = PointDistances(count=400, floor_pairs=2, exact_count=100, metrics=ALL, projections=16)(fake_run())
    names = [f"{metric}_{100 if metric in ('w2', 'emd') else 400}" for metric in ALL]
    assert list(scores) == [*names, *(f"{name}_floor" for name in names)]
    assert scores["w2_100"] == pytest.approx(np.sqrt(scores["emd_100"]))
    for metric in (
        "energy_distance_400",
        "sliced_w2_400",
        "w2_100",
    ):  # samples from the data's own law score like the floor
        assert scores[metric] < 3 * scores[f"{metric}_floor"]
    worse = PointDistances(count=400, floor_pairs=0, exact_count=100, metrics=ALL)(fake_run(shift=1.0))
    assert not any(name.endswith("_floor") for name in worse)
    assert worse["w2_100"] == pytest.approx(np.sqrt(2), abs=0.3)
    assert worse["energy_distance_400"] > 20 * scores["energy_distance_400_floor"]


def test_evaluator_with_several_solvers_and_no_repeated_data():
    pipeline = FakePipeline()
    solvers = {"still": SimpleNamespace(shift=0.0), "far": SimpleNamespace(shift=2.0)}
    evaluator = PointDistances(count=200, floor_pairs=1, exact_count=200, metrics=["emd"], solvers=solvers)
    scores = evaluator(fake_run(pipeline))
    assert list(scores) == ["emd_200/still", "emd_200/far", "emd_200_floor"]
    assert scores["emd_200/far"] == pytest.approx(8, abs=1.5) and scores["emd_200/still"] < 0.5
    drawn = list(pipeline.drawn)
    assert drawn == [("eval", 200), ("train", 200)]
    assert evaluator(fake_run(pipeline)) == scores and pipeline.drawn == drawn  # data and floor are kept


def test_data_comes_from_training_where_evaluation_is_short():
    pipeline = FakePipeline(rows={"train": 700, "eval": 299})
    PointDistances(count=300, floor_pairs=2, metrics=["energy_distance"])(fake_run(pipeline))
    assert pipeline.drawn == [("train", 600), ("train", 600)]
    PointDistances(count=300, floor_pairs=0, metrics=["energy_distance"])(fake_run(pipeline))
    assert pipeline.drawn[2:] == [("train", 300)]


@pytest.mark.parametrize(
    ("rows", "floor_pairs", "most"),
    [({"train": 700}, 0, 700), ({"train": 700}, 1, 350), ({"train": 700, "eval": 500}, 1, 500)],
)
def test_too_little_data_is_told_before_training(rows, floor_pairs, most):
    pipeline = FakePipeline(rows=rows)
    PointDistances(count=most, floor_pairs=floor_pairs).check(pipeline)
    PointDistances(count=most, floor_pairs=floor_pairs, metrics=["energy_distance"])(fake_run(pipeline))
    with pytest.raises(UsageError, match=f"count={most + 1} needs .* but there are 700"):
        PointDistances(count=most + 1, floor_pairs=floor_pairs).check(pipeline)


def test_labels_follow_the_data():
    pipeline = FakePipeline(labels=[3, 3, 3, 7])
    run = fake_run(pipeline, conditions=("label",))
    PointDistances(count=800, floor_pairs=0, batch=300, metrics=["energy_distance"])(run)
    labels = np.concatenate(run.objective.labels)
    assert [len(part) for part in run.objective.labels] == [300, 300, 200]
    assert set(labels) == {3, 7} and np.mean(labels == 3) == pytest.approx(0.75, abs=0.06)


def test_samples_that_are_not_finite_do_not_end_the_run():
    solvers = {"bad": SimpleNamespace(shift=[0.0, float("nan")]), "good": SimpleNamespace(shift=0.0)}
    scores = PointDistances(count=50, floor_pairs=1, metrics=["emd"], solvers=solvers)(fake_run())
    assert np.isnan(scores.pop("emd_50/bad")) and scores.pop("nonfinite_samples/bad") == 1
    assert sorted(scores) == ["emd_50/good", "emd_50_floor"] and np.isfinite(list(scores.values())).all()


def test_unknown_metric_names_the_nearest():
    with pytest.raises(UsageError, match="'energy'.*nearest: energy_distance"):
        PointDistances(metrics=["energy"])


def test_steps_are_those_of_the_runs_own_solver_beside_named_ones():
    class Steps:
        def __init__(self, steps):
            self.steps = steps

        @property
        def shift(self):
            return float(self.steps)

    run = fake_run()
    run.solver = Steps(7)
    named = {"still": SimpleNamespace(shift=0.0)}
    scores = PointDistances(200, 1, 200, ["emd"], steps=[1, 3], solvers=named)(run)
    assert list(scores) == ["emd_200_1step", "emd_200_3step", "emd_200/still", "emd_200_floor"]
    assert scores["emd_200_1step"] == pytest.approx(2, abs=0.9)  # both coordinates shifted by 1
    assert scores["emd_200_3step"] == pytest.approx(18, abs=3) and run.solver.steps == 7
    with pytest.raises(UsageError, match="whole numbers from 1 on, got 0"):
        PointDistances(steps=[0])


def test_names_state_thousands():
    assert [counted("fd", n) for n in (297, 1000, 2500, 50_000)] == ["fd_297", "fd_1k", "fd_2500", "fd_50k"]
