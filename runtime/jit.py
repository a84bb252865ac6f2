"""Lets MLX compile its fused CPU kernels for this very processor; runtime.blas imports this before mlx.core.

On Linux CPU, mx.compile writes C++ and calls `g++ -O3` without an architecture: exp and erf then call libm's fused
multiply-add one number at a time. A `g++` of ours, first on the PATH, adds flags with which these loops are vectorised;
none of them reorders sums or drops NaN and infinities. Kernels go to a cache of their own, keyed by processor and
compiler, so that they never mix with others'. Four fifths of a kernel's compilation is MLX's header, so the first
kernel leaves it precompiled beside them (50 MB, 3 s), and the machine code stays the same to the byte.
Only the C library's environment is changed, not os.environ. MLX_LAB_NATIVE=off leaves MLX as installed.
"""

import ctypes
import os
import platform
import shutil
import sys
import zlib
from pathlib import Path

# -march=native: this processor's vectors and multiply-adds. --param: MLX's exp, sin and erf are inlined, without which
# no loop over them is vectorised. No traps and no errno: both sides of a choice may be computed, and square roots need
# no call. __FAST_MATH__: glibc's headers then offer libmvec's vector versions of tanh, log and others; unlike option
# -ffast-math, it changes no arithmetic. No tree-pre: it makes branches of strided maxima, 25 times as long on random
# numbers. Alias checks: an optimizer's kernel reads four arrays and writes three, too many pairs for the usual limit of
# 10. Milliseconds for 524,288 numbers, in one thread of a Xeon with AVX-512, by
# -march=native alone and by all: exp 2.6, .26; sigmoid 3.1, .36; erf 7.1, .43; tanh 13.9, .22; log 1.9, .18.
FLAGS = (
    "-march=native -fno-trapping-math -fno-math-errno -fno-tree-pre -D__FAST_MATH__"
    " --param max-inline-insns-auto=400 --param inline-unit-growth=400 --param vect-max-version-for-alias-checks=200"
)

# MLX calls `g++ --version` and `g++ OPTIONS -I HEADERS KERNEL.cpp -o FOLDER/KERNEL.so`. GCC takes HEADER.gch from the
# first folder that has it, but only if it fits; an empty one stands for a header that can't be precompiled.
WRAPPER = """#!/bin/sh
compile() {{ exec "{compiler}" {flags} "$@"; }}
precompile() {{
  for word; do
    shift
    case "$word" in -o|*.cpp|*.so) ;; *) set -- "$@" "$word" ;; esac
  done
  mkdir -p "${{made%/*}}" || return
  echo "#include \\"$header\\"" > "$made.$$.h"
  (compile "$@" -x c++-header "$made.$$.h" -o "$made.$$") || : > "$made.$$"
  mv "$made.$$" "$made"
  rm "$made.$$.h"
}}
for last; do :; done
case "$last" in *.so) ;; *) compile "$@" ;; esac
folder="${{last%/*}}/precompiled"
header=mlx/backend/cpu/compiled_preamble.h
made="$folder/$header.gch"
[ -e "$made" ] || precompile "$@" > /dev/null 2>&1
compile -I "$folder" "$@"
"""


def compiler_found(path: str) -> str | None:
    """The first g++ on a PATH that isn't ours, by one name, so that parents and children share kernels."""
    own = str(Path("mlx-lab") / "jit-")
    found = shutil.which("g++", path=os.pathsep.join(place for place in path.split(os.pathsep) if own not in place))
    if found is None:
        return None
    real = Path(found).resolve()
    return str(real) if "g++" in real.name else found  # ccache and the like go by the name that they are called by


def cache_folder() -> Path:
    """Where compiled helpers of this project are kept for this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlx-lab"


def processor() -> str:
    """What decides which instructions -march=native emits."""
    text = Path("/proc/cpuinfo").read_text()
    lines = [
        line for line in text.split("\n\n")[0].splitlines() if line.startswith(("flags", "model name", "Features"))
    ]
    return platform.machine() + "".join(lines)


def prepare() -> str:
    """Puts the compiler in place; says what happened."""
    if sys.platform != "linux":
        return "not needed"
    if os.environ.get("MLX_LAB_NATIVE", "").lower() == "off" or os.environ.get("MLX_LAB_BLAS", "").lower() == "off":
        return "off"
    compiler = compiler_found(os.environ.get("PATH", ""))
    if compiler is None:
        return "no g++: mx.compile does not fuse kernels on this CPU; install g++"
    made = Path(compiler).stat().st_mtime_ns
    key = zlib.crc32(f"{compiler}{made}{FLAGS}{WRAPPER}{processor()}".encode())
    folder = cache_folder() / f"jit-{key:08x}"
    wrapper = folder / "bin" / "g++"
    try:
        if not wrapper.exists():
            wrapper.parent.mkdir(parents=True, exist_ok=True)
            temporary = wrapper.with_name(f"g++.{os.getpid()}")
            temporary.write_text(WRAPPER.format(compiler=compiler, flags=FLAGS))
            temporary.chmod(0o755)
            temporary.replace(wrapper)
        (folder / "tmp").mkdir(exist_ok=True)
    except OSError as error:
        return f"{folder} can't be written ({error.strerror}): kernels are compiled for any processor"
    setenv = ctypes.CDLL(None).setenv
    setenv(b"PATH", f"{wrapper.parent}:{os.environ.get('PATH', '')}".encode(), 1)
    setenv(b"TMPDIR", str(folder / "tmp").encode(), 1)
    return f"{FLAGS}, kernels in {folder / 'tmp'}"


status = prepare()
