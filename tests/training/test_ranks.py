"""Two processes over a ring take the steps that one process takes at the doubled batch."""

import json
import sys

import numpy as np
import pytest

from runtime.world import ALONE
from scripts.processes import together
from tests.training import ranks
from tests.training.by_hand import mlp, weights

HALF = ("bf16", "fp16")  # Adam makes whole steps of the rounding of a gradient near 0: here losses alone are compared


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    root = str(ranks.Path(ranks.__file__).resolve().parents[2])
    code = f"import sys; sys.path.insert(0, {root!r}); from tests.training.ranks import main; main()"
    assert together([sys.executable, "-c", code, str(folder)], 2, "ring", "cpu") == 0
    return folder


@pytest.fixture(scope="module")
def alone():
    return ranks.play(ALONE)


@pytest.mark.parametrize("case", [name for name in ranks.CASES if name != "statistics"])
def test_two_processes_equal_one_at_the_doubled_batch(folder, alone, case):
    first, second = (dict(np.load(folder / f"{case}{rank}.npz")) for rank in (0, 1))
    assert first.keys() == second.keys() == alone[case].keys()
    for name, wanted in alone[case].items():
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)  # to the last bit
        if name == "sum":  # a carry: the rows of rank 0, then those of rank 1
            wanted = np.concatenate([wanted[0::2], wanted[1::2]])
        if name == "losses" or (name != "asked" and case not in HALF):
            close = 5e-3 if case in HALF else 1e-5
            np.testing.assert_allclose(first[name], wanted, rtol=0, atol=close, err_msg=name)
    if "asked" in first:
        assert first["asked"].item() == 0b101  # what one of the two wishes, none, both


def test_weights_moved_and_a_bad_row_of_one_process_skipped_a_step_in_both(folder):
    plain, bad = (dict(np.load(folder / f"{case}0.npz")) for case in ("plain", "not finite"))
    start = weights(mlp())
    assert max(abs(plain[f"models.model.{path}"] - a).max() for path, a in start.items()) > 0.01
    assert (plain["step"], plain["skipped"], bad["step"], bad["skipped"]) == (10, 0, 10, 1)
    assert np.isnan(bad["losses"]).tolist() == [number == 4 for number in range(10)]


def test_statistics_of_a_batch_norm_are_the_mean_over_the_processes(folder):
    first, second = (dict(np.load(folder / f"statistics{rank}.npz")) for rank in (0, 1))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    mean = np.zeros(2)
    for batch in ranks.own_batches(ALONE):  # a mean of the halves' means is that of the whole
        mean = 0.9 * mean + 0.1 * np.asarray(batch["x"]).mean(0)
    np.testing.assert_allclose(first["models.model.norm.running_mean"], mean, atol=1e-6)


def test_processes_tell_each_other_what_rank_0_says(folder):
    for rank in (0, 1):
        said = json.loads((folder / f"said{rank}.json").read_text())
        assert said["told"] == {"from": 0, "é": [1.5, None]} and said["nothing"] is None
        assert said["sent"] == [3.5, True] and said["alone"] == rank
        for change in ("order", "bit"):
            assert "process 1 starts with other weights than process 0 (1 of 2 arrays, the first is b)" in said[change]
