"""The function that Modal calls, in a clean folder with what its image holds: preempted, crashed, cancelled."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from scripts.remote.options import Options
from scripts.remote.request import prepare
from scripts.remote.submit import spec_of
from tests.scripts.remote.fake import FakeCalls, FakeVolume
from training.checkpoint import load
from training.tracking import repeatable

TINY = [
    "run_name=t", "epochs=null", "max_steps=40", "eval_every=null", "save_every=10s", "trackio.log_every=10",
    "evaluation=none", "traces.evaluation.pictures=null", "traces.progress.quiet=true", "compile=false",
    "batch_size=16", "dataloaders.train_data.size=640", "dataloaders.eval_data.size=32", "model.hidden=4",
    "model.depth=1", "trackio.enabled=false",
]  # fmt: skip
STATUS = "status/t/status.json"


@pytest.fixture(autouse=True, scope="module")
def plugin(tmp_path_factory):
    """A user's package that makes steps slow, so that there is time to stop a run."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "slowly.py").write_text(SLOWLY)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.chdir(folder)
        yield


@pytest.fixture
def calls(tmp_path):
    return FakeCalls(tmp_path / "fake", FakeVolume(tmp_path / "store"))


def send(calls: FakeCalls, *overrides: str, **options) -> dict:
    return calls.spawn(spec_of(prepare([*TINY, *overrides], Options(**options))), False, lambda call: None) or {}


def rows(store: Path, run: str = "t") -> list[dict]:
    lines = (store / "outputs" / run / "metrics.jsonl").read_text().splitlines()
    return [repeatable(json.loads(line)) for line in lines]


def test_a_run_leaves_its_folder_its_status_and_its_output_on_the_volume(calls):
    result = send(calls)
    assert result["state"] == "finished" and result["attempt"] == 1, calls.output
    store = calls.volume.store
    kept = sorted(path.name for path in (store / "outputs" / "t" / "checkpoints").iterdir())
    assert kept == ["step_00000030.safetensors", "step_00000040.safetensors"]
    assert (
        json.loads((store / "outputs/t/summary.json").read_text())["git"]
        == calls.specs[0]["image"]["env"]["MLX_LAB_GIT"]
    )
    told = calls.volume.json(STATUS)
    assert (told["state"], told["step"], told["call"], told["gpu"]) == ("finished", 40, "fc-1", "H100")
    assert "finished after 40 steps" in (store / "status/t/output-1.log").read_text()
    listed = calls.volume.json("status/t/files.json")
    assert {"config.yaml", "metrics.jsonl", "checkpoints/step_00000040.safetensors"} <= {*listed}
    assert not [path for path in store.rglob("*") if path.suffix == ".part"]
    assert (store / "outputs/t/metrics.jsonl").stat().st_size == listed["metrics.jsonl"][0]


LONG = [
    "trackio.enabled=true",
    "max_steps=50",
    "save_every=5s",
    "plugins=[slowly]",
    "+traces.slow._target_=slowly.Slow",
]
SLOWLY = """
import time
from traces.trace import Trace

class Slow(Trace):
    def on_batch_end(self, data):
        time.sleep(0.02)

class Crash(Trace):
    def on_batch_end(self, data):
        raise RuntimeError("as planned")
"""


def saved(volume: FakeVolume) -> bool:
    """Whether checkpoints are committed while the run goes on."""
    return volume.json(STATUS).get("step", 0) >= 10 and volume.json(STATUS)["state"] == "running"


def weights(store: Path) -> list[bytes]:
    arrays, meta = load(store / "outputs/t/checkpoints/step_00000050.safetensors")
    assert meta["step"] == 50
    return [np.array(array).tobytes() for _, array in sorted(arrays.items())]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The volume after the long run without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    calls = FakeCalls(folder / "fake", FakeVolume(folder / "store"))
    assert send(calls, *LONG)["state"] == "finished", calls.output
    return calls.volume.store


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_preempted_run_goes_on_by_itself_and_ends_like_one_without_a_stop(calls, whole, number):
    calls.preempt = [lambda volume: number if saved(volume) else 0]
    result = send(calls, *LONG, retries=0)
    assert result["state"] == "finished" and result["attempt"] == 2 and len(calls.attempts) == 2, calls.output
    assert "t: stopped" not in calls.output and "stopped at step" in calls.output and "resuming t from" in calls.output
    assert weights(calls.volume.store) == weights(whole) and rows(calls.volume.store) == rows(whole)


@pytest.mark.slow
def test_a_container_that_vanishes_costs_what_was_not_committed_and_no_more(calls, whole):
    calls.grace = 0.0  # killed as soon as told
    calls.preempt = [saved]
    result = send(calls, *LONG, retries=0)
    assert result["state"] == "finished" and calls.attempts[0] < 0, calls.output
    assert weights(calls.volume.store) == weights(whole) and rows(calls.volume.store) == rows(whole)


@pytest.mark.slow
def test_a_retry_of_an_overwriting_run_does_not_overwrite_again(calls, whole):
    shutil.copytree(whole, calls.volume.store, dirs_exist_ok=True)
    (calls.volume.store / "outputs/t/old.txt").write_text("of the run before")
    calls.preempt = [saved]
    assert send(calls, *LONG, "overwrite=true", "seed=1")["state"] == "finished", calls.output
    assert calls.output.count("resuming t from") == 1 and not (calls.volume.store / "outputs/t/old.txt").exists()
    assert weights(calls.volume.store) != weights(whole)


@pytest.mark.slow
def test_a_crash_is_retried_as_often_as_asked_and_then_told(calls):
    result = send(calls, "plugins=[slowly]", "+traces.crash._target_=slowly.Crash", retries=2)
    assert result["state"] == "crashed" and "as planned" in result["message"] and len(calls.attempts) == 3, calls.output
    assert calls.volume.json(STATUS)["state"] == "crashed" and calls.volume.json(STATUS)["attempt"] == 3


def test_a_cancelled_run_saves_first_and_is_not_retried(calls):
    calls.preempt = [lambda volume: saved(volume) and calls.cancel("fc-1")]  # impatient: again and again
    result = send(calls, *LONG)
    told = calls.volume.json(STATUS)
    assert result["state"] == "cancelled" and told["state"] == "cancelled" and len(calls.attempts) == 1, calls.output
    assert (calls.volume.store / f"outputs/t/checkpoints/step_{told['step']:08d}.safetensors").exists()
    assert 10 <= told["step"] < 50 and f"stopped at step {told['step']}, saved" in calls.output


def test_mistakes_that_only_the_other_machine_can_find_are_not_retried(calls):
    result = send(calls, "batch_size=100000")
    assert result["state"] == "failed" and "100000" in result["message"] and len(calls.attempts) == 1
