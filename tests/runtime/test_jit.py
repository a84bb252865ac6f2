import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import runtime.blas  # noqa: F401  before mlx
from runtime import jit

# isort: split
import mlx.core as mx

ROOT = Path(__file__).parents[2]
HEADERS = Path(mx.__file__).parent / "include"
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
    (header,) = (tmp_path / "cache").glob("mlx-lab/jit-*/tmp/mlx/*/cpu/precompiled/**/*.gch")
    (wrapper,) = (tmp_path / "cache").glob("mlx-lab/jit-*/bin/g++")
    first = next((tmp_path / "cache").glob("mlx-lab/jit-*/tmp/mlx/*/cpu/*.cpp"))
    made = first.with_name("made.so")
    command = [wrapper, "-std=c++17", "-O3", "-fPIC", "-shared", "-H", "-I", HEADERS, first, "-o", made]

    def compiled():
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        return f"! {header}\n" in said, made.read_bytes()

    used, code = compiled()
    header.write_bytes(b"")
    assert used and compiled() == (False, code), "the precompiled header changes machine code"


def test_the_compiler_is_the_real_one_for_parent_and_child(tmp_path):
    ours, real, other, ccache = (tmp_path / name for name in ("mlx-lab/jit-01234567/bin", "real", "other", "ccache"))
    for folder in (ours, real, other, ccache):
        folder.mkdir(parents=True)
    for file in (ours / "g++", real / "x86-g++-12", ccache / "ccache"):
        file.touch(0o755)
    (other / "g++").symlink_to(real / "x86-g++-12")
    (ccache / "g++").symlink_to(ccache / "ccache")
    assert jit.compiler_found(f"{ours}{os.pathsep}{other}") == str(real / "x86-g++-12")
    assert jit.compiler_found(f"{ccache}{os.pathsep}{other}") == str(ccache / "g++")
    assert jit.compiler_found(str(ours)) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux CPUs compile kernels with g++")
def test_off_leaves_mlx_as_installed(tmp_path):
    said = run(XDG_CACHE_HOME=str(tmp_path / "cache"), TMPDIR=str(tmp_path), MLX_LAB_NATIVE="off")
    assert said.startswith("True") and said.endswith("off")
    assert list(tmp_path.glob("mlx/*/cpu/*.so")) and not list((tmp_path / "cache").glob("mlx-lab/jit-*"))


native = pytest.mark.skipif(not jit.status.startswith(jit.FLAGS), reason="kernels are not compiled by our flags here")
SPECIAL = [0, -0.0, math.inf, -math.inf, math.nan, 1e-42, 1e-30, -1e-30, 80, -80, 100, -100, 3e38]


@native
@pytest.mark.parametrize(
    "name, tolerance",
    [("exp", 1e-5), ("tanh", 5e-7), ("log", 5e-7), ("log1p", 5e-7), ("sqrt", 2e-7), ("sigmoid", 5e-7), ("erf", 1e-6)],
)
def test_vectorised_functions_are_right_for_special_numbers_too(name, tolerance):
    x = np.concatenate([np.linspace(-9, 9, 4001), np.tile(SPECIAL, 7)]).astype(np.float32)
    function = getattr(mx, name)
    # an operation alone is not compiled
    found = mx.compile(lambda x: mx.maximum(function(x), function(x) - 1))(mx.array(x))
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        if name == "sigmoid":
            wanted = 1 / (1 + np.exp(-wide))
        else:
            wanted = np.vectorize(math.erf)(wide) if name == "erf" else getattr(np, name)(wide)
        wanted = wanted.astype(np.float32)
    np.testing.assert_allclose(np.array(found), wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


@native
def test_loops_over_exp_and_choices_are_vectorised():
    x = mx.random.normal((2**19,))
    mx.eval(x)

    def least(function):
        times = []
        for _ in range(6):
            begin = time.process_time()
            mx.eval(function(x))
            times.append(time.process_time() - begin)
        return min(times)

    # alone, an operation runs in MLX's own loop, one number at a time: 20 times as long
    assert least(mx.compile(lambda x: mx.sigmoid(x) * x)) < least(mx.sigmoid) / 4
    assert least(mx.compile(lambda x: mx.tanh(x) * x)) < least(mx.tanh) / 4
