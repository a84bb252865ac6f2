"""Compiles CUDA C++ by the NVRTC that MLX has loaded, and keeps the machine code on disk.

mx.fast.cuda_kernel compiles its sources anew in every process, and with all of MLX's headers: NVRTC 13.0 takes ten
times as long with them as for a source that includes nothing (5 against 0.5 s on a busy CPU). What is compiled here
runs by mx.fast.precompiled_cuda_kernel.
"""

import ctypes
import hashlib
import tempfile
from functools import lru_cache
from pathlib import Path

import mlx.core as mx

from runtime.jit import cache_folder

# Numbers of CUDA sources, and bfloat16 and float16 without CUDA's headers (compute capability 8.0 or later).
TYPES = {mx.float32: "float", mx.bfloat16: "Brain", mx.float16: "Half", mx.int32: "int"}
HEADER = r"""
struct Brain {
  unsigned short bits;
  Brain() = default;
  __device__ Brain(float f) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(f)); }
  __device__ operator float() const { return __uint_as_float(unsigned(bits) << 16); }
};

struct Half {
  unsigned short bits;
  Half() = default;
  __device__ Half(float f) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(f)); }
  __device__ operator float() const {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(bits));
    return f;
  }
};
"""


@lru_cache
def library() -> ctypes.CDLL | None:
    """The NVRTC of this process; None without one, such as where MLX isn't built for CUDA."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    paths = {line.split()[-1] for line in lines if "/libnvrtc.so" in line}
    return ctypes.CDLL(min(paths)) if paths else None


@lru_cache
def architecture() -> str:
    """The GPU's name for the compiler, such as sm_90a."""
    info = mx.device_info(mx.Device(mx.gpu))
    major, minor = int(info["compute_capability_major"]), int(info["compute_capability_minor"])
    return f"sm_{major}{minor}{'a' if major >= 9 else ''}"


@lru_cache
def compiled(source: str, target: str) -> bytes:
    """The machine code of `source`, which includes nothing, for an architecture such as sm_90a.

    Kept under cache/cuda, keyed by source, target and NVRTC; a file that was cut short or changed is compiled again.
    Raises RuntimeError with the compiler's words, or where there is no NVRTC.
    """
    nvrtc = library()
    if nvrtc is None:
        raise RuntimeError("NVRTC is not loaded in this process: an MLX built for CUDA loads it.")
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    key = hashlib.sha256(f"{major.value}.{minor.value} {target}\n{source}".encode()).hexdigest()[:32]
    path = cache_folder() / "cuda" / f"{key}.cubin"
    if path.exists():
        digest, code = path.read_bytes()[:32], path.read_bytes()[32:]
        if hashlib.sha256(code).digest() == digest:
            return code
    code = translate(nvrtc, source, target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:  # two processes may do this at once
            file.write(hashlib.sha256(code).digest() + code)
        Path(file.name).replace(path)
    except OSError:
        pass  # a cache that can't be written costs the next process its time, nothing else
    return code


def translate(nvrtc: ctypes.CDLL, source: str, target: str) -> bytes:
    """One run of the compiler; raises RuntimeError with its words."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()

    def text(name: str) -> bytes:
        getattr(nvrtc, f"nvrtcGet{name}Size")(program, ctypes.byref(size))
        found = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{name}")(program, found)
        return found.raw

    options = [f"--gpu-architecture={target}".encode(), b"--std=c++17"]
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    try:
        if failed:
            raise RuntimeError(f"NVRTC: {text('ProgramLog').decode(errors='replace').strip(chr(0))}")
        return text("CUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
