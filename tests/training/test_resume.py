"""Runs through the launcher's own `train`: resume, signals, damaged files, full disks, refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import launcher
from runtime.errors import UsageError
from runtime.slots import snapshot
from scripts.compose import compose
from traces.trace import Trace
from training import checkpoint
from training.estimator import Interrupted
from training.experiment import evaluate_run, load_run
from training.tracking import Tracker, repeatable

ROOT = Path(__file__).parents[2]
SMALL = [
    "run_name=r", "model.hidden=8", "model.depth=1", "batch_size=32", "dataloaders.train_data.size=640", "epochs=null",
    "dataloaders.eval_data.size=100", "evaluation=none", "traces.evaluation.pictures=null", "trackio.log_every=3",
    "eval_every=10s", "save_every=5s", "max_steps=30", "traces.progress.quiet=true", "device=cpu", "compile=false",
    "trackio.enabled=false",
]  # fmt: skip


def run(folder, *more):
    overrides = [*SMALL, *more]
    return launcher.train(compose(overrides), folder, overrides)


def final(folder):
    return {k: np.array(v) for k, v in checkpoint.load(checkpoint.find(folder))[0].items()}


def record(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [repeatable(row) for row in rows]


def assert_equal_runs(a, b):
    one, other = final(a), final(b)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert record(a) == record(b)


@pytest.mark.parametrize(
    "options",
    [[], ["accumulate=2", "traces.machine.seconds=0.01"], ["optimizer.ema=[0.9,0.99]", "loss.coupling=ot"]],
    ids=str,
)
@pytest.mark.parametrize("stop", [5, 13])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, options, stop):
    run(tmp_path / "whole", *options)
    run(tmp_path / "parts", *options, f"max_steps={stop}")
    run(tmp_path / "parts", *options, "resume=true")
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def test_rows_and_steps_are_complete_and_unique(tmp_path):
    run(tmp_path / "r")
    steps = [row["step"] for row in record(tmp_path / "r")]
    assert steps == sorted(set(range(3, 31, 3)) | {10, 20, 30})
    losses = [row["eval/loss"] for row in record(tmp_path / "r") if "eval/loss" in row]
    assert len(losses) == 3 and losses[-1] < losses[0]


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, capsys):
    run(tmp_path / "whole")
    run(tmp_path / "r", "max_steps=20")
    newest = checkpoint.find(tmp_path / "r")
    raw = bytearray(newest.read_bytes())
    raw[-10] ^= 1
    newest.write_bytes(raw)
    run(tmp_path / "r", "resume=true")
    assert "damaged" in capsys.readouterr().out
    assert_equal_runs(tmp_path / "whole", tmp_path / "r")


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_a_checkpoint_cut_short_is_refused_in_a_sentence(tmp_path, cut):
    run(tmp_path / "r", "max_steps=5")
    file = checkpoint.find(tmp_path / "r")
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(UsageError, match="step_00000005.safetensors"):
        load_run(file)


def test_an_existing_run_is_refused_unless_told_what_to_do(tmp_path):
    run(tmp_path / "r", "max_steps=5")
    with pytest.raises(UsageError, match="resume=true"):
        run(tmp_path / "r", "max_steps=5")
    run(tmp_path / "r", "max_steps=3", "overwrite=true")
    assert not (tmp_path / "r" / "checkpoints" / "step_00000005.safetensors").exists()


def test_a_run_that_ends_by_bad_losses_saves_and_keeps_what_was_saved_before(tmp_path):
    folder = tmp_path / "r"
    run(folder, "max_steps=5", "save_every=null", "traces.checkpoints.keep_last=1")
    more = ["resume=true", "optimizer.learning_rate=1e30", "optimizer.clip=null", "save_every=null"]
    with pytest.raises(UsageError, match="updates in a row up to step"):
        run(folder, *more, "max_steps=60", "traces.checkpoints.keep_last=1", "eval_every=null")
    first, last = sorted((folder / "checkpoints").iterdir())
    assert first.name == "step_00000005.safetensors"
    before, after = (checkpoint.load(path)[0] for path in (first, last))
    assert all(mx.isfinite(after[name]).all().item() for name in after if name.startswith("models."))
    assert any(not mx.array_equal(after[name], before[name]).item() for name in after if name.startswith("models."))
    assert after["streak"].item() >= 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_rest_follows_on_resume(tmp_path, number):
    run(tmp_path / "whole", "save_every=null")
    overrides = [
        *SMALL,
        "save_every=null",
        "+traces.stop._target_=tests.training.test_resume.KillAt",
        "plugins=[tests]",
    ]
    with pytest.raises(Interrupted) as stop:
        launcher.train(compose([*overrides, f"+traces.stop.number={int(number)}"]), tmp_path / "r", overrides)
    assert stop.value.signal == number
    assert checkpoint.find(tmp_path / "r").name == "step_00000007.safetensors"
    run(tmp_path / "r", "save_every=null", "resume=true")
    assert_equal_runs(tmp_path / "whole", tmp_path / "r")


def test_a_signal_whose_save_fails_does_not_claim_to_have_saved(tmp_path, monkeypatch, capsys):
    def full_disk(path, *rest):
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(mx, "save_safetensors", full_disk)
    stop = ["+traces.stop._target_=tests.training.test_resume.KillAt", "+traces.stop.number=15", "plugins=[tests]"]
    with pytest.raises(UsageError, match="No space left on device"):
        run(tmp_path / "r", "save_every=null", *stop)
    assert ", saved" not in capsys.readouterr().out


class KillAt(Trace):
    """Sends its own process a signal after step 7."""

    def __init__(self, number: int):
        super().__init__(mode="train")
        self.number = number

    def on_batch_end(self, data):
        if self.estimator.step == 7:
            os.kill(os.getpid(), self.number)


def test_exit_status_of_the_command_after_sigterm_is_143(tmp_path):
    child = subprocess.Popen(
        [sys.executable, ROOT / "launcher.py", *SMALL, f"output_dir={tmp_path}", "max_steps=10000000", "max_time=60s"],
        stdout=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert child.stdout and "steps an epoch" in child.stdout.readline()
    while not list((tmp_path / "r").glob("checkpoints/step_*")):
        pass
    child.terminate()
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 143 and "resume=true" in out


def test_a_second_process_on_the_same_run_is_refused_while_the_first_lives(tmp_path):
    folder = tmp_path / "r"
    run(folder, "max_steps=5")
    holder = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
        "print('held', flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", holder, folder / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout and child.stdout.readline() == b"held\n"
    with pytest.raises(UsageError, match="another process"):
        run(folder, "resume=true")
    child.kill()
    child.wait()
    run(folder, "resume=true", "max_steps=6")


def test_a_failed_save_loses_nothing_and_training_goes_on(tmp_path, monkeypatch, capsys):
    whole, saves = mx.save_safetensors, []

    def full_disk(path, *rest):
        saves.append(path)
        if len(saves) == 2:
            whole(path, *rest)
            Path(path).write_bytes(Path(path).read_bytes()[:1000])
            raise RuntimeError("No space left on device")
        whole(path, *rest)

    monkeypatch.setattr(mx, "save_safetensors", full_disk)
    run(tmp_path / "r", "max_steps=12")
    assert "not saved (No space left on device)" in capsys.readouterr().out
    names = sorted(p.name for p in (tmp_path / "r" / "checkpoints").iterdir())
    assert names == ["step_00000005.safetensors", "step_00000012.safetensors"]
    for name in names:
        checkpoint.load(tmp_path / "r" / "checkpoints" / name)


def test_a_last_save_that_fails_is_an_error_and_the_run_can_go_on(tmp_path, monkeypatch):
    def full_disk(path, *rest):
        raise RuntimeError("No space left on device")

    run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        run(tmp_path / "r", "max_steps=10")
        patch.setattr(mx, "save_safetensors", full_disk)
        with pytest.raises(UsageError, match="No space left on device.*resume=true"):
            run(tmp_path / "r", "resume=true", "max_steps=12")
    run(tmp_path / "r", "resume=true")
    assert_equal_runs(tmp_path / "whole", tmp_path / "r")


def test_keeps_last_best_and_archives(tmp_path):
    saver = "traces.checkpoints."
    run(
        tmp_path / "r",
        f"{saver}keep_best=1",
        f"{saver}archive_every=1",
        "save_every=10s",
        "eval_every=10s",
        "max_steps=40",
    )
    names = {p.name for p in (tmp_path / "r" / "checkpoints").iterdir()}
    losses = {row["step"]: row["eval/loss"] for row in record(tmp_path / "r") if "eval/loss" in row}
    best = min(losses, key=lambda step: losses[step])
    assert names == {
        "step_00000030.safetensors", "step_00000040.safetensors", f"best_step_{best:08d}.safetensors",
        "r_epoch_0001.safetensors", "r_epoch_0002.safetensors",
    }  # fmt: skip


def test_a_monitor_that_is_never_logged_is_told(tmp_path, capsys):
    run(tmp_path / "r", "traces.checkpoints.keep_best=1", "traces.checkpoints.monitor=eval/los", "max_steps=10")
    assert "keep_best=1 kept nothing, 'eval/los' was never logged; nearest: eval/loss" in capsys.readouterr().out


def test_damaged_files_of_later_steps_make_room_for_new_ones(tmp_path):
    run(tmp_path / "r", "max_steps=20")
    for file in (tmp_path / "r" / "checkpoints").iterdir():
        os.truncate(file, 100)
    run(tmp_path / "r", "resume=true", "max_steps=10")
    names = sorted(path.name for path in (tmp_path / "r" / "checkpoints").iterdir())
    assert names == ["step_00000005.safetensors", "step_00000010.safetensors"]
    assert load_run(tmp_path / "r").step == 10


def test_load_run_and_eval_checkpoint_need_the_file_alone(tmp_path):
    summary = run(tmp_path / "r")
    file = checkpoint.find(tmp_path / "r")
    alone = tmp_path / "elsewhere.safetensors"
    alone.write_bytes(file.read_bytes())
    loaded = load_run(alone)
    assert loaded.step == 30 and loaded.samples(5).shape == (5, 2)
    assert evaluate_run(alone)[0]["eval/loss"] == pytest.approx(summary.latest["eval/loss"], rel=1e-6)
    plain, averaged = load_run(alone, ema=False), load_run(alone, ema=0.999)
    assert not np.array_equal(plain.samples(5), averaged.samples(5))
    with pytest.raises(UsageError, match="no EMA of decay 0.5"):
        load_run(alone, ema=0.5)


def test_fine_tuning_starts_from_another_runs_averages(tmp_path):
    run(tmp_path / "a")
    source = load_run(tmp_path / "a")
    run(tmp_path / "b", f"init_from={tmp_path / 'a'}", "max_steps=1", "optimizer.learning_rate=0.0", "seed=5")
    got = {k: np.array(v) for k, v in checkpoint.load(checkpoint.find(tmp_path / "b"))[0].items()}
    for path, value in snapshot(source.model).items():
        np.testing.assert_array_equal(got[f"models.model.{path}"], np.array(value))


def test_another_network_is_refused_by_name_and_shape(tmp_path):
    run(tmp_path / "r", "max_steps=5")
    with pytest.raises(UsageError, match="needed"):
        run(tmp_path / "r", "resume=true", "model.hidden=9")
    with pytest.raises(UsageError, match="does not fit this network"):
        run(tmp_path / "r", "resume=true", "model.depth=3")


def test_nan_data_end_the_run_with_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="not finite"):
        run(tmp_path / "r", "optimizer.learning_rate=1e30", "optimizer.optimizer._target_=mlx.optimizers.SGD",
            "~optimizer.optimizer.betas", "~optimizer.optimizer.eps", "~optimizer.optimizer.bias_correction",
            "traces.nan.patience=3")  # fmt: skip


def test_a_copied_folder_under_another_name_asks_for_a_run_of_its_own(tmp_path, monkeypatch):
    asked = []

    def start(self, resume=None):
        asked.append(resume and resume["run_id"])
        self.run_id = "theirs"

    monkeypatch.setattr(Tracker, "start", start)
    run(tmp_path / "r", "max_steps=5")
    shutil.copytree(tmp_path / "r", tmp_path / "copy")
    run(tmp_path / "r", "resume=true", "max_steps=5")
    run(tmp_path / "copy", "resume=true", "max_steps=5", "run_name=copy")
    assert asked == [None, "theirs", None]
