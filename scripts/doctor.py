"""Says what this machine gives MLX Lab and what to mend: `python scripts/doctor.py`; exit status 2 asks for mending."""

import contextlib
import os
import platform
import shutil
import sys
import tempfile
import time
import tomllib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # must come before mlx.core
import runtime.heap
import runtime.jit

# isort: split
import mlx.core as mx
import numpy as np

from runtime.device import describe, select
from runtime.instantiate import ROOMS

ROOT = Path(__file__).resolve().parents[1]
SIDE, SLOW = 1024, 15.0  # a side of the measured product; GF/s below which a CPU product counts as slow


class Finding(NamedTuple):
    """One line of the report; a remedy makes it a problem, which must be mended unless it is only `advice`."""

    name: str
    value: str
    remedy: str = ""
    advice: bool = False


def installed(name: str) -> str:
    """The version of an installed package, or ""."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def packages() -> list[Finding]:
    """Python and the packages of pyproject.toml against what it asks for."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python, wanted = platform.python_version(), SpecifierSet(project["requires-python"])
    found = [Finding("python", python, "" if python in wanted else f"use a Python {wanted}")]
    for line in project["dependencies"]:
        requirement = Requirement(line)
        have = installed(requirement.name)
        fits = have != "" and requirement.specifier.contains(have, prereleases=True)
        found.append(Finding(requirement.name, have or "missing", "" if fits else f'pip install "{line}"'))
    return found


def rooms() -> Finding:
    """Whether the folders of the repository are what Python imports under their names."""
    astray = []
    for room in ROOMS:
        spec = find_spec(room)
        places = list(spec.submodule_search_locations or []) if spec else []
        if (ROOT / room).is_dir() and (not places or Path(places[0]).resolve() != ROOT / room):
            astray.append(f"{room} -> {places[0] if places else spec and spec.origin}")
    remedy = "uninstall the package that ships a folder of this name, or run from the repository's root"
    return Finding("folders", ", ".join(astray) or "all resolve inside the repository", remedy if astray else "")


def product(device: mx.Device) -> tuple[float, float]:
    """GF/s of a 1024-cubed float32 product on `device` (best of five), and its largest error against float64."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, SIDE, SIDE)).astype(np.float32)
    best = float("inf")
    with mx.stream(device):
        x, y = mx.array(a), mx.array(b)
        mx.eval(x, y)
        for _ in range(5):
            start = time.perf_counter()
            z = x @ y
            mx.eval(z)
            best = min(best, time.perf_counter() - start)
    error = float(np.abs(np.array(z)[:64] - a[:64].astype(np.float64) @ b).max())
    return 2 * SIDE**3 / best / 1e9, error


def products() -> list[Finding]:
    """The BLAS in use, measured on the CPU and on the default device."""
    status = runtime.blas.status
    found = [Finding("BLAS", f"{status.state}: {status.detail}", status.remedy)]
    tf32 = os.environ.get("MLX_ENABLE_TF32", "unset: on")
    gpu = mx.default_device() != mx.Device(mx.cpu)
    for device in [mx.Device(mx.cpu), mx.default_device()][: 1 + gpu]:
        name = "gpu" if device == mx.Device(mx.gpu) else "cpu"
        speed, error = product(device)
        remedy, advice = "", False
        if error > (0.5 if name == "gpu" else 1e-2):  # TF32 keeps ten bits of each factor
            remedy = "the numbers are wrong; run with MLX_LAB_BLAS=off and report this machine"
        elif name == "cpu" and speed < SLOW and sys.platform == "linux":
            remedy, advice = "slow: see BLAS above, or other work holds the processor", True
        found.append(Finding(f"product {name}", f"{speed:.0f} GF/s, largest error {error:.1e}", remedy, advice))
    threads = os.environ.get("OPENBLAS_NUM_THREADS", f"unset: half of {os.cpu_count()}")
    found += [Finding("OPENBLAS_NUM_THREADS", threads)] if sys.platform == "linux" else []
    found += [Finding("CPU memory", runtime.heap.status)] if sys.platform == "linux" else []
    return [*found, Finding("MLX_ENABLE_TF32", f"{tf32} (it matters on NVIDIA GPUs; 0 for parity tests)")]


def size(folder: Path) -> str:
    """Files and MiB below a folder."""
    sizes = []
    for path in folder.rglob("*") if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # a compiler that is at work takes its own away
            sizes += [path.stat().st_size] if path.is_file() else []
    return f"{folder}: {len(sizes)} files, {sum(sizes) / 2**20:.1f} MiB"


def fused_kernels() -> Finding:
    """How mx.compile's fused CPU kernels are compiled; a missing g++ is a remedy of its own line."""
    status = runtime.jit.status
    if "can't be written" not in status:
        return Finding("fused CPU kernels", status)
    return Finding("fused CPU kernels", status, "set XDG_CACHE_HOME to a folder that can be written", advice=True)


def compilers() -> list[Finding]:
    """What mx.compile needs, and where compiled kernels are kept."""
    gpu = mx.is_available(mx.gpu)
    found = []
    if sys.platform == "linux":
        where = shutil.which("g++")
        remedy = "" if where else "install g++ (Debian: apt install gcc g++); without it mx.compile does not fuse"
        found.append(Finding("g++", where or "missing", remedy, advice=gpu))
        found.append(fused_kernels())
        ours = runtime.jit.status.startswith(runtime.jit.FLAGS)
        scratch = Path(tempfile.gettempdir()) / "mlx" / installed("mlx") / "cpu"
        found.append(Finding("compile cache", size(runtime.jit.cache_folder() if ours else scratch)))
    if mx.cuda.is_available():
        kernels = os.environ.get("MLX_PTX_CACHE_DIR", "")
        remedy = "" if kernels else "set it to a folder that lasts: a cold start compiles kernels for minutes"
        found.append(Finding("MLX_PTX_CACHE_DIR", size(Path(kernels)) if kernels else "unset", remedy, advice=True))
    else:
        found.append(Finding("MLX_PTX_CACHE_DIR", os.environ.get("MLX_PTX_CACHE_DIR", "unset (CUDA only)")))
    return found


def distributed() -> Finding:
    """The communication back ends that this MLX was built with."""
    found = {name: mx.distributed.is_available(name) for name in ("ring", "mpi", "jaccl", "nccl")}
    return Finding("distributed", ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in found.items()))


def examine() -> list[Finding]:
    """Every finding, in the order of the report."""
    select("auto")
    device = describe()
    place = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    words = ", ".join(f"{key} {value}" for key, value in device.items() if key not in ("mlx", "blas"))
    where = [Finding("machine", place), Finding("default", words)]
    return [*packages(), rooms(), *where, *products(), *compilers(), distributed()]


def main() -> int:
    """Prints the report; 0 when all is well, 2 when something must be mended."""
    findings = examine()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = " " if not finding.remedy else "-" if finding.advice else "!"
        print(f"{mark} {finding.name:<{width}}  {finding.value}")
        if finding.remedy:
            print(f"  {'':<{width}}  -> {finding.remedy}")
    wrong = [finding.name for finding in findings if finding.remedy and not finding.advice]
    print(f"to mend: {', '.join(wrong)}" if wrong else "all is well")
    return 2 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
