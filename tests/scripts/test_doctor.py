"""The doctor: healthy here, and each broken thing is named with its remedy and exit status 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import runtime.blas
import runtime.heap
import runtime.jit
from scripts import doctor

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(doctor, "SIDE", 128)  # speed is not judged here


def test_the_report_names_versions_device_blas_and_caches(capsys):
    status = doctor.main()
    out = capsys.readouterr().out
    for name in ("python", "mlx", "hydra-core", "omegaconf", "trackio", "numpy", "BLAS", "product cpu", "GF/s",
                 "MLX_ENABLE_TF32", "MLX_PTX_CACHE_DIR", "distributed", "ring yes", "folders"):  # fmt: skip
        assert name in out
    assert runtime.blas.status.detail in out
    assert sys.platform != "linux" or (runtime.jit.status in out and runtime.heap.status in out)
    assert status == (2 if "to mend" in out else 0)


def test_a_missing_compiler_and_a_wrong_version_must_be_mended(monkeypatch, capsys):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor, "installed", lambda name: {"mlx": "0.1.0"}.get(name, "99"))
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    assert doctor.main() == 2
    out = capsys.readouterr().out
    assert "install g++" in out and 'pip install "mlx==0.32.4"' in out and "to mend: mlx" in out


def test_without_gxx_a_fresh_process_says_that_kernels_are_not_fused_and_what_to_install(tmp_path):
    if sys.platform != "linux":
        pytest.skip("only Linux CPUs compile kernels with g++")
    environment = {**os.environ, "PATH": str(tmp_path)}  # holds no compiler
    command = [sys.executable, "-m", "scripts.doctor"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "no g++: mx.compile does not fuse" in done.stdout and "-> install g++" in done.stdout, done.stderr


def test_a_cache_that_cannot_be_written_is_told_with_advice(monkeypatch):
    monkeypatch.setattr(runtime.jit, "status", "/x can't be written (Permission denied): for any processor")
    finding = doctor.fused_kernels()
    assert "XDG_CACHE_HOME" in finding.remedy and finding.advice


def test_wrong_numbers_are_found(monkeypatch):
    monkeypatch.setattr(doctor.mx, "eval", lambda *arrays: None)
    monkeypatch.setattr(doctor.np, "abs", lambda x: doctor.np.full(3, 9.0))
    found = {finding.name: finding for finding in doctor.products()}
    assert "MLX_LAB_BLAS=off" in found["product cpu"].remedy and not found["product cpu"].advice


@pytest.mark.skipif(sys.platform != "linux", reason="macOS needs no BLAS of ours")
def test_a_failed_blas_gives_status_2_in_a_fresh_process(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "file"), "MLX_LAB_BLAS": ""}
    (tmp_path / "file").write_text("")  # a cache folder that cannot be made
    command = [sys.executable, "-m", "scripts.doctor"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "to mend: BLAS" in done.stdout and "XDG_CACHE_HOME" in done.stdout


def test_it_runs_as_a_file_from_any_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, str(doctor.ROOT / "scripts" / "doctor.py")], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode in (0, 2) and "fused CPU kernels" in done.stdout, done.stderr


def test_a_file_that_goes_while_a_folder_is_counted_does_not_count(tmp_path, monkeypatch):
    (tmp_path / "kept").write_bytes(bytes(2**20))
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr(Path, "is_file", lambda path: True)  # as it was when it was asked
    assert doctor.size(tmp_path) == f"{tmp_path}: 1 files, 1.0 MiB"
