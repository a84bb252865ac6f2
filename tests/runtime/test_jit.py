import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import runtime.blas, runtime.jit, os
import mlx.core as mx, numpy as np
mx.set_default_device(mx.cpu)
x = np.linspace(-9, 9, 1000, dtype=np.float32)
got = np.array(mx.compile(lambda x: mx.sigmoid(x) * x + mx.erf(x))(mx.array(x)))
from scipy.special import erf
want = x.astype(np.float64) / (1 + np.exp(-x.astype(np.float64))) + erf(x.astype(np.float64))
print(np.abs(got - want).max() < 2e-6, os.environ.get("TMPDIR", "unset"), runtime.jit.status)
"""


def run(**environment):
    environment = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux CPUs compile kernels with g++")
def test_kernels_are_right_and_in_a_cache_of_their_own(tmp_path):
    said = run(XDG_CACHE_HOME=str(tmp_path / "cache"), TMPDIR=str(tmp_path))
    assert said.startswith(f"True {tmp_path} -march=native")
    assert list((tmp_path / "cache").glob("mlx-lab/jit-*/tmp/mlx/*/cpu/*.so"))
    assert not (tmp_path / "mlx").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux CPUs compile kernels with g++")
def test_off_leaves_mlx_as_installed(tmp_path):
    said = run(XDG_CACHE_HOME=str(tmp_path / "cache"), TMPDIR=str(tmp_path), MLX_LAB_NATIVE="off")
    assert said.startswith("True") and said.endswith("off")
    assert list(tmp_path.glob("mlx/*/cpu/*.so")) and not list((tmp_path / "cache").glob("mlx-lab/jit-*"))
