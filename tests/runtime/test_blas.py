"""The forwarding library: right numbers through every forwarded routine, and an honest status."""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import runtime.blas as blas

# isort: split
import mlx.core as mx
import numpy as np

ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate")
loaded = pytest.mark.skipif(blas.status.state != "loaded", reason=f"BLAS not loaded here: {blas.status.detail}")


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs code in a fresh interpreter at the repository's root."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)


@loaded
def test_the_linker_finds_the_forwarding_names_first():
    whole, shim = ctypes.CDLL(None), ctypes.CDLL(blas.status.shim)
    for name in [*blas.GEMM, *(f"{name}_" for name in blas.LAPACK)]:
        address = [ctypes.cast(getattr(lib, name), ctypes.c_void_p).value for lib in (whole, shim)]
        assert address[0] == address[1], name


@loaded
def test_every_blas_and_lapack_name_that_mlx_imports_is_forwarded():
    text = (Path(mx.__file__).parent / "lib" / "libmlx.so").read_bytes()
    names = set(re.findall(rb"\0(cblas_\w+|[sdcz](?:ge|sy|he|po|or|tr|un)[a-z0-9]{2,4}_)(?=\0)", text))
    assert {name.decode() for name in names} == {*blas.GEMM, *(f"{name}_" for name in blas.LAPACK)}


@loaded
def test_the_threads_of_a_product_are_openblas_own(monkeypatch):
    library, before = ctypes.CDLL(blas.status.library), blas.threads()
    try:
        for count in (1, 2, 3):
            library.scipy_openblas_set_num_threads(count)
            assert blas.threads() == count
    finally:
        library.scipy_openblas_set_num_threads(before)
    monkeypatch.setattr(blas, "status", blas.Status("off", ""))
    assert blas.threads() == 1


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_products_equal_numpy_for_all_transpositions(dtype):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 37, 53)), rng.standard_normal((2, 53, 29))
    if dtype == "complex64":
        a, b = a + 1j * rng.standard_normal(a.shape), b - 1j * rng.standard_normal(b.shape)
    a, b = a.astype(dtype), b.astype(dtype)
    want = a.astype(np.complex128) @ b.astype(np.complex128)
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    with mx.stream(mx.cpu):
        x, y = mx.array(a, getattr(mx, dtype)), mx.array(b, getattr(mx, dtype))
        for left in (x, mx.contiguous(x.swapaxes(1, 2)).swapaxes(1, 2)):
            for right in (y, mx.contiguous(y.swapaxes(1, 2)).swapaxes(1, 2)):
                np.testing.assert_allclose(np.array(left @ right), want, atol=tolerance, rtol=tolerance)


def test_alpha_beta_and_the_wide_product_equal_numpy():
    rng = np.random.default_rng(1)
    a, b, c = (rng.standard_normal(shape).astype("float32") for shape in ((300, 500), (500, 200), (300, 200)))
    got = mx.addmm(mx.array(c), mx.array(a), mx.array(b), alpha=0.5, beta=-2.0, stream=mx.cpu)
    want = 0.5 * a.astype("float64") @ b - 2.0 * c
    assert np.abs(np.array(got) - want).max() < 1e-4


def test_factorisations_rebuild_the_matrix():
    rng = np.random.default_rng(2)
    a = rng.standard_normal((24, 24)).astype("float32")
    spd = a @ a.T + 24 * np.eye(24, dtype="float32")
    x, s, eye = mx.array(a), mx.array(spd), np.eye(24)
    near = dict(atol=2e-3, rtol=1e-4)
    with mx.stream(mx.cpu):
        np.testing.assert_allclose(np.array(mx.linalg.inv(s)) @ spd, eye, **near)  # getrf, getri
        q, r = map(np.array, mx.linalg.qr(x))  # geqrf, orgqr
        np.testing.assert_allclose(q @ r, a, **near)
        np.testing.assert_allclose(q.T @ q, eye, **near)
        u, d, vt = map(np.array, mx.linalg.svd(x))  # gesdd
        np.testing.assert_allclose(u * d @ vt, a, **near)
        low = np.array(mx.linalg.cholesky(s))  # potrf
        np.testing.assert_allclose(low @ low.T, spd, **near)
        w, v = map(np.array, mx.linalg.eigh(s))  # syevd
        np.testing.assert_allclose(v * w @ v.T, spd, **near)
        inverse = np.array(mx.linalg.tri_inv(mx.tril(s)))  # trtri
        np.testing.assert_allclose(inverse @ np.tril(spd), eye, **near)
        w, v = map(np.array, mx.linalg.eig(x))  # geev
        np.testing.assert_allclose(a @ v, v * w, **near)
        h = (a + 1j * a.T + (a + 1j * a.T).conj().T).astype("complex64")
        w, v = map(np.array, mx.linalg.eigh(mx.array(h)))  # heevd
        np.testing.assert_allclose(v * w @ v.conj().T, h, **near)


@linux
@loaded
def test_two_processes_build_into_an_empty_cache_at_once(tmp_path):
    code = "import runtime.blas as b, sys; print(b.status.state, b.status.shim); sys.exit('mlx.core' in sys.modules)"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    running = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert [words[0] for words in said] == ["loaded", "loaded"]
    assert [path.name for path in (tmp_path / "mlx-lab").glob("blas-*")] == [
        Path(said[0][1]).name
    ]  # nothing left behind


@linux
def test_off_loads_nothing():
    done = python("import runtime.blas as b; print(b.status.state, bool(b.status.shim))", MLX_LAB_BLAS="off")
    assert (done.stdout.split(), done.stderr) == (["off", "False"], "")


@linux
@loaded
def test_too_late_no_compiler_and_a_broken_cache_are_one_line_with_a_remedy(tmp_path):
    late = python("import mlx.core, runtime.blas as b; print(b.status.state)")
    assert late.stdout.split() == ["failed"]
    assert late.stderr.count("\n") == 1 and "import runtime.blas first" in late.stderr
    bare = python("import runtime.blas", XDG_CACHE_HOME=str(tmp_path), PATH="/nowhere")
    assert bare.returncode == 0 and bare.stderr.count("\n") == 1 and "install gcc" in bare.stderr
    broken = tmp_path / "mlx-lab" / Path(blas.status.shim).name
    broken.parent.mkdir()
    broken.write_text("not a library")
    stale = python("import runtime.blas", XDG_CACHE_HOME=str(tmp_path))
    assert stale.returncode == 0 and stale.stderr.count("\n") == 1 and str(broken.parent) in stale.stderr


def test_a_compiler_error_is_reported_with_its_last_line(tmp_path):
    with pytest.raises(OSError, match="exited with 1: .*error"):
        blas.build("this is no C;", tmp_path / "x.so", "cc")
    assert list(tmp_path.iterdir()) == []
