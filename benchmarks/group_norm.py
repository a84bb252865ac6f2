"""Checks the CUDA kernels of group norm against MLX's own operations on a GPU, then times both.

python benchmarks/group_norm.py [--batch 128]

One JSON line a size: the largest error relative to the largest entry, and median milliseconds of values, gradient and
jvp, fused and plain. Ends with status 1 where an error exceeds 2e-3 in float32 or 3e-2 in bfloat16.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import runtime.blas  # noqa: F401  before mlx

# isort: split
import mlx.core as mx

from models.elementary import silu
from models.group_norm import GroupNorm, fits
from runtime.device import select

SIZES = [(32, 128), (16, 256), (8, 256), (32, 384), (16, 512), (32, 64), (8, 96)]  # height, channels
BOUND = {mx.float32: 2e-3, mx.bfloat16: 3e-2}


def functions(norm: GroupNorm, mode: str):
    """Values, gradient and jvp of the norm with SiLU and modulation, compiled."""

    def call(x, scale, shift):
        GroupNorm.mode = mode
        if mode == "fused":
            return norm(x, silu=True, scale=scale, shift=shift)
        return silu(norm(x, scale=scale, shift=shift))

    def gradient(x, scale, shift, g):
        def loss(x, scale, shift):
            return (call(x, scale, shift).astype(mx.float32) * g).sum()

        return mx.grad(loss, argnums=(0, 1, 2))(x, scale, shift)

    def slope(x, scale, shift, g):
        return mx.jvp(call, [x, scale, shift], [g.astype(x.dtype), shift, scale])[1]

    return {"values": mx.compile(lambda x, a, b, g: call(x, a, b)), "gradient": mx.compile(gradient),
            "jvp": mx.compile(slope)}  # fmt: skip


def milliseconds(function, arguments, repeats: int = 20) -> float:
    """The median time of a call after two warm-up calls."""
    times = []
    for turn in range(repeats + 2):
        begin = time.perf_counter()
        mx.eval([function(*arguments) for _ in range(5)])
        if turn > 1:
            times.append(1e3 * (time.perf_counter() - begin) / 5)
    return round(statistics.median(times), 4)


def error(found, wanted) -> float:
    """The largest difference over the largest entry, over all arrays."""
    found, wanted = ([x] if isinstance(x, mx.array) else list(x) for x in (found, wanted))
    pairs = [(a.astype(mx.float32), b.astype(mx.float32)) for a, b in zip(found, wanted, strict=True)]
    return max(float(mx.abs(a - b).max() / mx.abs(b).max()) for a, b in pairs)


def main() -> int:
    """Every size in float32 and bfloat16; the reference is plain and float32."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    given = parser.parse_args()
    select("gpu")
    worst = 0.0
    for height, channels in SIZES:
        norm = GroupNorm(channels)
        norm.weight, norm.bias = 1 + 0.3 * mx.random.normal((channels,)), mx.random.normal((channels,))
        shape = (given.batch, height, height, channels)
        x, g = 1 + 2 * mx.random.normal(shape), mx.random.normal(shape)
        scale, shift = (0.3 * mx.random.normal((given.batch, channels)) for _ in range(2))
        if not fits(x, norm.groups):
            print("the CUDA kernels can't run here: no NVIDIA GPU in use, or another MLX", file=sys.stderr)
            return 1
        reference = functions(norm, "plain")
        for dtype in (mx.float32, mx.bfloat16):
            arguments = [x.astype(dtype), scale.astype(dtype), shift.astype(dtype), g]
            wide = [a.astype(mx.float32) for a in arguments]
            plain, fused = functions(norm, "plain"), functions(norm, "fused")
            line: dict = {"shape": shape, "dtype": str(dtype).split(".")[-1]}
            for name in ("values", "gradient", "jvp"):
                off = error(fused[name](*arguments), reference[name](*wide))
                worst = max(worst, off / BOUND[dtype])
                line[name] = {"error": float(f"{off:.1e}"), "fused_ms": milliseconds(fused[name], arguments),
                              "plain_ms": milliseconds(plain[name], arguments)}  # fmt: skip
            print(json.dumps(line), flush=True)
    print("ALL PASS" if worst < 1 else f"FAILED: {worst:.1f} times the bound")
    return int(not worst < 1)


if __name__ == "__main__":
    sys.exit(main())
