"""Whole runs by two processes: equal to one, killed and resumed, stopped by a signal to either."""

import json
import subprocess
import sys
from pathlib import Path

import mlx.optimizers as optim
import numpy as np
import pytest

from runtime.errors import UsageError
from runtime.op import ObjectiveOp
from runtime.world import ALONE, World
from scripts.processes import together
from tests.training import rank_runs
from tests.training.by_hand import Regression
from tests.training.ranks import Blocks
from tests.training.test_resume import final, record
from training import checkpoint, sharding
from training.network import Network
from training.update import UpdateOp

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, options in rank_runs.OPTIONS.items():
        rank_runs.run(folder / "alone" / name, *options, rows=32)
    rank_runs.run(folder / "start", "max_steps=1", "optimizer.learning_rate=1e-9", rows=32)
    rank_runs.run(folder / "carried by one", *rank_runs.CARRY, "max_steps=7", rows=32)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.training.rank_runs import main; main()"
    overrides = [*rank_runs.SMALL, "batch_size=16", *rank_runs.at(7, 1), f"output_dir={folder}", "run_name=killed"]
    died = subprocess.run([sys.executable, str(ROOT / "launcher.py"), *overrides, "distributed.processes=2"], cwd=ROOT,
                          capture_output=True, text=True)  # fmt: skip
    (folder / "died.json").write_text(json.dumps([died.returncode, died.stdout, died.stderr]))
    assert together([sys.executable, "-c", code, str(folder)], 2, "ring", "cpu") == 0
    return folder


@pytest.fixture(scope="module")
def said(folder):
    return [json.loads((folder / f"said{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("case", rank_runs.OPTIONS)
def test_weights_and_rows_are_those_of_one_process_at_the_doubled_batch(folder, case):
    two, one = final(folder / case), final(folder / "alone" / case)
    assert two.keys() == one.keys()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-5, err_msg=name)
    if case == "plain":
        started = final(folder / "start")
        assert max(abs(one[name] - a).max() for name, a in started.items() if name.startswith("models.")) > 0.3
    rows, wanted = record(folder / case), record(folder / "alone" / case)
    assert [row.keys() for row in rows] == [row.keys() for row in wanted] and len(rows) >= 20
    for row, other in zip(rows, wanted, strict=True):
        for name in row.keys() - {"train/error"}:  # a metric of training rows is rank 0's
            assert row[name] == pytest.approx(other[name], abs=1e-5), name


def test_decisions_of_rank_0_are_all_processes(said, folder):
    assert said[0]["stopped early"].startswith("loss has not improved") and said[1]["stopped early"] == "finished"
    assert checkpoint.find(folder / "stopped early").name == "step_00000020.safetensors"
    assert said[0]["timed out"] == "max_time of 0.01 s reached"
    assert int(checkpoint.find(folder / "timed out").stem.removeprefix("step_")) < 20  # before the end of an epoch
    rates = [row["train/learning_rate"] for row in record(folder / "slower") if "train/learning_rate" in row]
    assert rates[-1] < 0.2 * rates[0]


def test_a_process_that_dies_ends_all_with_its_error(folder):
    status, out, errors = json.loads((folder / "died.json").read_text())
    assert status == 1 and "on each of 2 processes (ring)" in out
    assert "ValueError: planted" in errors and "process 1 of 2 ended with status 1" in errors
    assert not (folder / "killed" / "summary.json").exists() or (folder / "killed" / "resume-1.yaml").exists()


def test_a_killed_run_resumes_to_the_same_end(folder, said):
    assert said[0]["killed"] == "finished"
    assert_equal(folder / "killed", folder / "plain")


def test_a_signal_to_one_process_saves_and_stops_both_at_one_step(folder, said):
    for own in said:
        assert own["stopped"] == "signal 15" and own["went on"] == "finished"
    log = (folder / "stopped" / "log.txt").read_text()
    assert "stopped at step 9, saved" in log and "resuming r from step_00000009.safetensors" in log
    assert_equal(folder / "stopped", folder / "plain")


def test_carries_are_gathered_and_given_back(folder):
    whole = final(folder / "carried")["carry.seen"]
    assert whole.shape == (32,) and len(np.unique(whole)) > 16
    assert_equal(folder / "carried", folder / "parts")
    assert "begins anew" not in (folder / "parts" / "log.txt").read_text()


def test_a_carry_of_another_number_of_processes_begins_anew_and_says_so(folder):
    assert "the carry of 1 processes does not fit 2: it begins anew" in (folder / "carried by one/log.txt").read_text()
    rank_runs.run(folder / "carried", *rank_runs.CARRY, "resume=true", "max_steps=21", rows=32)
    assert "the carry of 2 processes does not fit 1: it begins anew" in (folder / "carried" / "log.txt").read_text()
    assert final(folder / "carried")["carry.seen"].shape == (32,)


def test_processes_that_start_differently_are_refused(said):
    for own in said:
        assert "process 1 starts with other weights than process 0" in own["other seed"]


def test_what_shards_can_not_serve_is_refused():
    sharding.check_sharded(network_of(optim.AdamW), evaluated=False)
    with pytest.raises(UsageError, match="fsdp evaluates nothing while weights are sharded; give eval_every=null"):
        sharding.check_sharded(network_of(optim.AdamW), evaluated=True)
    with pytest.raises(UsageError, match="needs an optimizer that treats every number alike.*got Muon"):
        sharding.check_sharded(network_of(optim.Muon), evaluated=False)
    model = Blocks()
    assert sharding.shard(model, ALONE) == 0
    with pytest.raises(UsageError, match="needs the backend nccl or jaccl, got ring"):
        sharding.shard(model, World(0, 2, "ring"))
    with pytest.raises(UsageError, match="first axes divide by 4; this Blocks has none"):
        sharding.shard(model, World(0, 4, "nccl"))


def network_of(optimizer):
    model = Blocks()
    return Network([ObjectiveOp(model, Regression()), UpdateOp(model, "loss", optimizer, 1e-3)])


def assert_equal(a, b):
    one, other = final(a), final(b)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert record(a) == record(b)
