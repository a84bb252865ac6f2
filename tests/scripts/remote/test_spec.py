"""What Modal is told: the function's keyword arguments, the image's packages at this repository's versions."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.remote import spec
from scripts.remote.options import Options
from scripts.remote.spec import build_spec, folders, pins

ROOT = Path(__file__).parents[3]
JOB = {"name": "x", "id": "1"}


def test_the_function():
    made = build_spec(Options(gpu="L4:2", timeout=60, retries=2, volume="v", secrets=("s",)), JOB)
    assert made["function"] == {
        "name": "execute", "gpu": "L4:2", "timeout": 60, "single_use_containers": True, "include_source": False,
        "serialized": False, "retries": {"max_retries": 2, "initial_delay": 10.0, "backoff_coefficient": 2.0},
    }  # fmt: skip
    assert made["volumes"] == {"/vol": {"name": "v", "create_if_missing": True, "version": 2}}
    assert made["secrets"] == ["s"] and made["arguments"] == {"job": JOB} and made["app"] == "mlx-lab-x"
    assert json.loads(json.dumps(made)) == made


def test_packages_have_one_exact_version_each_that_constraints_txt_has_too():
    known = (ROOT / "constraints.txt").read_text()
    for line in pins():
        name, _, version = line.partition("==")
        assert version and ("[" in name or f"{name.lower()}=={version}\n" in known.lower()), line
    assert "mlx[cuda13]==0.32.4" in pins("13") and "mlx[cuda12]==0.32.4" in pins("12")
    assert len([line for line in pins() if re.match(r"mlx\b", line)]) == 1
    assert {"torch==2.13.0", "clean-fid==0.1.35"} < {*pins("13", ("fid",))} and "torch==2.13.0" not in pins()


def test_the_source_is_what_the_package_holds_and_the_benchmarks():
    assert {"configs", "scripts", "training", "benchmarks"} < {*folders()} and "tests" not in folders()
    assert all((ROOT / name).exists() for name in (*folders(), *spec.FILES))


def launch(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """The command in a process where importing MLX or Modal raises."""
    (folder / "blocked").mkdir(exist_ok=True)
    for name in ("mlx", "modal"):
        (folder / "blocked" / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")
    command = [sys.executable, str(ROOT / "launcher.py"), "--backend", "modal", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder / "blocked")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "H10O"], "all: T4, L4, A10"),
        (["modle=unet"], "nearest: model"),
        (["model=unett"], "all: attention_unet"),
    ],
)
def test_a_typo_costs_less_than_three_seconds_and_imports_neither_mlx_nor_modal(tmp_path, arguments, said):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = launch(tmp_path, "run_name=x", *arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and said in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1
    # the processor's seconds: other work may hold the machine
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 3


def test_a_dry_run_prints_the_spec_and_sends_nothing(tmp_path):
    done = launch(tmp_path, "run_name=x", "--gpu", "H100:2", "--dry-run", "epochs=3")
    shown = json.loads(done.stdout)
    assert done.returncode == 0 and not done.stderr
    assert shown["function"]["gpu"] == "H100:2"
    assert shown["arguments"]["job"]["command"] == ["launcher.py", "run_name=x", "epochs=3", "distributed.processes=2"]
    assert shown["image"]["uv_pip_install"] == pins()
    assert not (tmp_path / "outputs").exists()
