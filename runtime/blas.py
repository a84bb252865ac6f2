"""Gives MLX a fast matrix product on Linux CPUs: import this before mlx.core.

The Linux wheel of MLX links the reference Netlib BLAS, 30 to 50 times slower than OpenBLAS. The dynamic linker takes
`cblas_sgemm` from the first globally loaded library that has it, so a small library of forwarding functions, loaded
here, sends the calls of MLX to the OpenBLAS of the package scipy-openblas32 (whose own names carry a `scipy_` prefix).
OpenBLAS itself stays local: SciPy ships another version under the same names. Threads: OPENBLAS_NUM_THREADS, or
half the cores.
MLX_LAB_BLAS=off leaves MLX as installed; on macOS nothing is needed.
"""

import ctypes
import os
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from runtime.heap import cpu_wheel
from runtime.jit import cache_folder

# LAPACK routines that libmlx imports: all their arguments are pointers; the second number counts the hidden lengths
# that Fortran appends for character arguments.
LAPACK = {
    "cgeev": (14, 2), "cgesdd": (15, 1), "cheevd": (13, 2), "dgeev": (14, 2), "dgeqrf": (8, 0), "dgesdd": (14, 1),
    "dgetrf": (6, 0), "dgetri": (7, 0), "dorgqr": (9, 0), "dpotrf": (5, 1), "dsyevd": (11, 2), "dtrtri": (6, 2),
    "sgeev": (14, 2), "sgeqrf": (8, 0), "sgesdd": (14, 1), "sgetrf": (6, 0), "sgetri": (7, 0), "sorgqr": (9, 0),
    "spotrf": (5, 1), "ssyevd": (11, 2), "strtri": (6, 2),
}  # fmt: skip
GEMM = {"cblas_sgemm": "float", "cblas_dgemm": "double", "cblas_cgemm": "const void *"}
INSTALL = 'pip install "scipy-openblas32>=0.3.34"'


class Status(NamedTuple):
    """What the load did: state is "loaded", "off", "not needed" or "failed"; remedy is empty unless it failed."""

    state: str
    detail: str
    remedy: str = ""
    version: str = ""
    library: str = ""
    shim: str = ""


def source() -> str:
    """The C source of the forwarding library; `bind(path)` returns the first name that OpenBLAS lacks, or null."""
    lines, names = ["#include <dlfcn.h>", "#include <stddef.h>"], []

    def forward(name: str, types: list[str]) -> None:
        arguments = ", ".join(f"{kind} a{i}" for i, kind in enumerate(types))
        values = ", ".join(f"a{i}" for i in range(len(types)))
        lines.append(f"static void (*real_{name})({', '.join(types)});")
        lines.append(f"void {name}({arguments}) {{ real_{name}({values}); }}")
        names.append(name)

    for name, scalar in GEMM.items():
        pointer = "const void *"
        forward(name, ["int"] * 6 + [scalar, pointer, "int", pointer, "int", scalar, "void *", "int"])
    for name, (pointers, lengths) in LAPACK.items():
        forward(f"{name}_", ["void *"] * pointers + ["size_t"] * lengths)
    lines += ["const char *mlx_lab_bind(const char *path) {", "  void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);"]
    lines.append("  if (!lib) return dlerror();")
    lines += [f'  if (!(*(void **)&real_{n} = dlsym(lib, "scipy_{n}"))) return "{n} is missing";' for n in names]
    return "\n".join([*lines, "  return NULL;", "}", ""])


def build(code: str, target: Path, compiler: str) -> None:
    """Compiles `code` into the shared library `target`, under a temporary name first: two processes may build at once.

    Raises OSError with the compiler's last line.
    """
    import subprocess
    import tempfile

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        text, made = Path(folder) / "shim.c", Path(folder) / "shim.so"
        text.write_text(code)
        command = [compiler, "-O2", "-w", "-shared", "-fPIC", "-o", str(made), str(text), "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise OSError(f"{compiler} exited with {done.returncode}: {last}")
        made.replace(target)


def load() -> Status:
    """Loads OpenBLAS under the names MLX looks up; says what happened instead of raising."""
    if sys.platform != "linux":
        return Status("not needed", "MLX uses Accelerate here")
    if os.environ.get("MLX_LAB_BLAS", "").lower() == "off":
        return Status("off", "MLX_LAB_BLAS=off: MLX as installed")
    spec = find_spec("scipy_openblas32")
    if spec is None or not spec.submodule_search_locations:
        if not cpu_wheel():
            return Status("not needed", "this MLX is not the CPU wheel")
        return Status("failed", "the package scipy-openblas32 is missing, matrix products are 30 times slower", INSTALL)
    package = Path(spec.submodule_search_locations[0])
    library = package / "lib" / "libscipy_openblas.so"
    found = package.parent.glob("scipy_openblas32-*.dist-info")
    version = next((p.name.removesuffix(".dist-info").split("-")[1] for p in found), "unknown")
    if "mlx.core" in sys.modules:
        return Status("failed", "mlx.core was imported before runtime.blas", "import runtime.blas first", version)
    code = source()
    key = zlib.crc32(code.encode())
    shim = cache_folder() / f"blas-{version}-{os.uname().machine}-{key:08x}.so"
    try:
        if not shim.exists():
            import shutil  # start-up time counts: only the first run needs it

            compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
            if compiler is None:
                return Status("failed", "no C compiler (cc, gcc, clang)", "install gcc and g++", version, str(library))
            build(code, shim, compiler)
        bind = ctypes.CDLL(str(shim)).mlx_lab_bind
        bind.restype, bind.argtypes = ctypes.c_char_p, [ctypes.c_char_p]
        problem = bind(str(library).encode())
        if problem:
            return Status("failed", problem.decode(), INSTALL, version, str(library), str(shim))
        ctypes.CDLL(str(shim), mode=ctypes.RTLD_GLOBAL)  # only now may MLX see the names
        if "OPENBLAS_NUM_THREADS" not in os.environ:
            # its threads spin while they wait: as many as cores, and one other busy process makes steps 6 times slower
            ctypes.CDLL(str(library)).scipy_openblas_set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    except OSError as error:
        remedy = f"see that {shim.parent} can be written and holds no stale file, or set XDG_CACHE_HOME"
        return Status("failed", str(error), remedy, version, str(library), str(shim))
    return Status("loaded", f"OpenBLAS {version}", "", version, str(library), str(shim))


def threads() -> int:
    """In how many threads a matrix product of MLX is computed here; 1 without OpenBLAS."""
    return ctypes.CDLL(status.library).scipy_openblas_get_num_threads() if status.state == "loaded" else 1


status = load()
if status.state == "failed":
    print(f"warning: slow CPU matrix products: {status.detail}; remedy: {status.remedy}", file=sys.stderr)
