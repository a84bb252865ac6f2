"""Checks the CUDA kernels of group norm against MLX's own operations on a GPU, then times both.

python benchmarks/group_norm.py [--batch 128] [--quick] [--compiler own|mlx]

One JSON line a size: the largest error relative to the largest entry, and median milliseconds, fused and plain, of
values, gradient, jvp, and the gradient that MeanFlow takes beside a jvp; first_ms is the first fused call of each, with
tracing and the kernels' compilers. Then the gradient through the jvp, checked on a small size. The last line is ALL
PASS, or FAILED with status 1: an error above 2e-3 in float32, 3e-2 in bfloat16, 5e-3 in float16. --quick: two sizes,
float32 and bfloat16. --compiler: of the kernels, runtime.nvrtc (own) or mx.fast.cuda_kernel.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import runtime.blas  # noqa: F401  before mlx

# isort: split
import mlx.core as mx

from models.elementary import silu
from models.group_norm import GroupNorm, fits
from runtime import cuda_launch
from runtime.device import select
from runtime.errors import UsageError

SIZES = [(32, 128), (16, 256), (8, 256), (32, 384), (16, 512), (32, 64), (8, 96)]  # height, channels
BOUND = {mx.float32: 2e-3, mx.bfloat16: 3e-2, mx.float16: 5e-3}
NAMES, THROUGH = ("values", "gradient", "jvp", "gradient beside jvp"), "gradient through jvp"


def calls(norm: GroupNorm, act: bool) -> Callable[[str], Callable]:
    """Mode to the norm in that mode, a function of (x, scale, shift); with SiLU for act."""

    def of(mode: str):
        def call(x, scale, shift):
            GroupNorm.mode = mode
            if mode == "fused":
                return norm(x, silu=act, modulation=mx.concatenate([scale, shift], axis=-1))
            y = norm(x, modulation=mx.concatenate([scale, shift], axis=-1))
            return silu(y) if act else y

        return call

    return of


def functions(call: Callable, compiled: bool = True) -> dict[str, Callable]:
    """Functions of (x, scale, shift, g): NAMES, and the gradient through the jvp."""

    def both(x, scale, shift, g):
        (u,), (slope,) = mx.jvp(call, [x, scale, shift], [g.astype(x.dtype), shift, scale])
        return u.astype(mx.float32), slope.astype(mx.float32)

    def gradient(x, scale, shift, g):
        def loss(x, scale, shift):
            return (call(x, scale, shift).astype(mx.float32) * g).sum()

        return mx.grad(loss, argnums=(0, 1, 2))(x, scale, shift)

    def beside(x, scale, shift, g):
        def loss(x, scale, shift):
            u, slope = both(x, scale, shift, g)
            return mx.square(u - mx.stop_gradient(slope)).sum()

        return mx.grad(loss, argnums=(0, 1, 2))(x, scale, shift)

    def through(x, scale, shift, g):
        def loss(x, scale, shift):
            return mx.square(both(x, scale, shift, g)[1]).sum()

        return mx.grad(loss, argnums=(0, 1, 2))(x, scale, shift)

    every: list[Callable] = [lambda x, a, b, g: call(x, a, b), gradient, lambda *a: both(*a)[1], beside, through]
    made = dict(zip([*NAMES, THROUGH], every, strict=True))
    return {name: mx.compile(f) if compiled else f for name, f in made.items()}


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


def arguments_of(shape: tuple, dtype: mx.Dtype):
    """x, scale, shift in dtype, and a cotangent in float32."""
    x, g = 1 + 2 * mx.random.normal(shape), mx.random.normal(shape)
    scale, shift = (0.3 * mx.random.normal((shape[0], shape[-1])) for _ in range(2))
    return [*(a.astype(dtype) for a in (x, scale, shift)), g]


def norm_of(channels: int) -> GroupNorm:
    """A norm with weights that are not one and zero."""
    norm = GroupNorm(channels)
    norm.weight, norm.bias = 1 + 0.3 * mx.random.normal((channels,)), mx.random.normal((channels,))
    return norm


def compared(of: Callable[[str], Callable], arguments: list, dtype: mx.Dtype) -> tuple[dict, float]:
    """The numbers of a line, and its largest error over the bound; the reference is plain, in float32."""
    wide = [a.astype(mx.float32) for a in arguments]
    reference, plain, fused = (functions(of(mode)) for mode in ("plain", "plain", "fused"))
    line, worst = {}, 0.0
    for name in NAMES:
        begin = time.perf_counter()
        found = fused[name](*arguments)
        mx.eval(found)
        first = 1e3 * (time.perf_counter() - begin)
        off = error(found, reference[name](*wide))
        worst = max(worst, off / BOUND[dtype])
        times = {f"{mode}_ms": milliseconds(f[name], arguments) for mode, f in (("fused", fused), ("plain", plain))}
        line[name] = {"error": float(f"{off:.1e}"), "first_ms": round(first), **times}
    return line, worst


def through_error(of: Callable[[str], Callable], arguments: list) -> float:
    """The error of the gradient through the jvp, over the bound; not compiled, as MLX's operations take it there."""
    found, wanted = (functions(of(mode), compiled=False)[THROUGH](*arguments) for mode in ("fused", "plain"))
    return error(found, wanted) / BOUND[mx.float32]


def report(cases, through) -> int:
    """Prints a line for each (label, of, arguments, dtype) of cases, then the verdict; through: (of, arguments)."""
    failed = []
    for label, of, arguments, dtype in cases:
        line, worst = compared(of, arguments, dtype)
        name = str(dtype).split(".")[-1]
        print(json.dumps({"shape": arguments[0].shape, "dtype": name, **label, **line}), flush=True)
        if not worst < 1:
            failed.append(f"{arguments[0].shape} {name} {worst:.1f} times the bound")
    if not (worst := through_error(*through)) < 1:
        failed.append(f"{THROUGH} {worst:.1f} times the bound")
    print("FAILED: " + "; ".join(failed) if failed else "ALL PASS")
    return int(bool(failed))


def options(description: str | None) -> argparse.Namespace:
    """The command line of this and its peers; also sets the compiler."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--compiler", choices=["mlx", "own"], default=cuda_launch.COMPILER)
    given = parser.parse_args()
    cuda_launch.COMPILER = given.compiler
    return given


def refused(possible: Callable[[], bool]) -> bool:
    """Selects the GPU; true, with a sentence, where the kernels can't run."""
    try:
        select("gpu")
    except UsageError as error:
        print(error, file=sys.stderr)
        return True
    if not possible():
        print("the CUDA kernels can't run here: they need an NVIDIA GPU and MLX for CUDA.", file=sys.stderr)
        return True
    return False


def main() -> int:
    """Every size and dtype; 1 when an error is too large, 2 where the kernels can't run."""
    given = options(__doc__)
    if refused(lambda: fits(mx.zeros((1, 1, 1, 128)), GroupNorm(128).groups)):
        return 2
    cases = [(size, dtype, True) for size in SIZES for dtype in BOUND] + [((16, 256), mx.bfloat16, False)]
    if given.quick:
        cases = [(size, dtype, True) for size in ((32, 128), (16, 512)) for dtype in (mx.float32, mx.bfloat16)]
    made = (
        ({"silu": act}, calls(norm_of(channels), act), arguments_of((given.batch, h, h, channels), dtype), dtype)
        for (h, channels), dtype, act in cases
    )
    return report(made, (calls(norm_of(64), True), arguments_of((4, 8, 8, 64), mx.float32)))


if __name__ == "__main__":
    sys.exit(main())
