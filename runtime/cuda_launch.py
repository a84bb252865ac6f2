"""Runs a CUDA kernel from the body of its source, compiled by MLX or by runtime.nvrtc.

A body sees its arrays by name, T (the type of x), its constants, `dims` (sizes, int) and `eps` (one float).
"""

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import mlx.core as mx

from runtime import nvrtc

# "own": by runtime.nvrtc, kept on disk, with a limit on registers so that two blocks share a multiprocessor; "mlx": by
# mx.fast.cuda_kernel, in every process anew (a UNet's first step then takes 9 s instead of 1.5 on an H200).
COMPILER = "own"
THREADS = 512  # of a block, at most
EIGHT = "template <typename T> struct alignas(16) Eight { T at[8]; };\n"  # numbers read at once


def available(x: mx.array) -> bool:
    """Whether CUDA kernels can run here on x, whatever its shape."""
    here = mx.default_device() == mx.Device(mx.gpu) and mx.cuda.is_available()
    return here and x.dtype in (mx.float32, mx.bfloat16, mx.float16)


def launch(
    name: str,
    header: str,
    body: str,
    inputs: dict[str, mx.array],
    outputs: dict[str, tuple],
    constants: dict[str, int | bool],
    dims: list[int],
    eps: float | None,
    blocks: int,
    threads: int,
) -> list[mx.array]:
    """The kernel's outputs; outputs: name to (shape, dtype), inputs: "x" and others, dims: at most 6 sizes."""
    dtype = inputs["x"].dtype
    options: dict = {
        "grid": (blocks * threads, 1, 1),
        "threadgroup": (threads, 1, 1),
        "output_shapes": [shape for shape, _ in outputs.values()],
        "output_dtypes": [dtype for _, dtype in outputs.values()],
    }
    if COMPILER == "own" and nvrtc.library() is not None:
        words = [f"const {nvrtc.TYPES[array.dtype]}* {key}" for key, array in inputs.items()]
        words += [f"{nvrtc.TYPES[kind]}* {key}" for key, (_, kind) in outputs.items()]
        lines = ["using T = " + nvrtc.TYPES[dtype], *(f"constexpr {declared(*c)}" for c in constants.items())]
        bound = THREADS // 2 if 2 * threads <= THREADS else THREADS
        source = own_source(name, header, body, tuple(words), tuple(lines), len(dims), bound)
        return mx.fast.precompiled_cuda_kernel(
            name=name,
            compiled_source=nvrtc.compiled(source, nvrtc.architecture()),
            inputs=list(inputs.values()),
            scalars=[*dims, struct.unpack("<i", struct.pack("<f", eps or 0.0))[0]],  # MLX 0.32.4 refuses floats here
            ensure_row_contiguous=True,
            **options,
        )
    if eps is not None:
        inputs = {**inputs, "eps": mx.array([eps])}
    call = kernel(name, (*inputs, "dims"), tuple(outputs), body, header)
    arrays = [*inputs.values(), mx.array(dims, mx.int32)]
    return call(inputs=arrays, template=[("T", dtype), *constants.items()], **options)


@lru_cache
def kernel(name: str, inputs: tuple, outputs: tuple, body: str, header: str) -> Callable[..., list[mx.array]]:
    """MLX's kernel; its source is the same for every size."""
    return cast(Callable[..., list[mx.array]], mx.fast.cuda_kernel(name, inputs, outputs, body, header=header))


@lru_cache
def own_source(
    name: str, header: str, body: str, parameters: tuple[str, ...], lines: tuple[str, ...], sizes: int, bound: int
) -> str:
    """The same kernel as a source on its own, for `bound` threads or fewer; sizes and eps's bits are int scalars."""
    names = [f"n{i}" for i in range(sizes)]
    lines = (*lines, f"const int dims[] = {{{', '.join(names)}}}", "const float eps[] = {__int_as_float(e)}")
    given = ", ".join([*parameters, *(f"int {n}" for n in names), "int e"])
    signature = f'extern "C" __global__ void __launch_bounds__({bound}, 2)\n{name}({given})'
    return f"{nvrtc.HEADER}{header}{signature} {{\n  {'; '.join(lines)};\n{body}}}\n"


def declared(name: str, value: Any) -> str:
    """A C++ constant without its constexpr."""
    return f"bool {name} = {str(value).lower()}" if isinstance(value, bool) else f"int {name} = {value}"
