"""Checks the CUDA kernels of modulated layer norm against MLX's own operations on a GPU, then times both.

python benchmarks/modulated_norm.py [--batch 128] [--quick] [--compiler own|mlx]

Lines, verdict and options as in group_norm.py; the sizes are those of DiT-S/2, -B/2, -B/4, -L/2 and -XL/2 on latents.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import runtime.blas  # noqa: F401  before mlx

# isort: split
import mlx.core as mx

from benchmarks.group_norm import BOUND, options, refused, report
from models import modulated_norm

SIZES = [(256, 384), (256, 768), (64, 768), (256, 1024), (256, 1152)]  # tokens, features


def of(mode: str):
    """The norm in a mode, a function of x (B, L, D) and scale and shift (B, 1, D)."""

    def call(x, scale, shift):
        modulated_norm.MODE = mode
        return modulated_norm.modulated(x, shift, scale)

    return call


def arguments_of(shape: tuple, dtype: mx.Dtype) -> list[mx.array]:
    """x, scale, shift in dtype, and a cotangent in float32."""
    x, g = 1 + 2 * mx.random.normal(shape), mx.random.normal(shape)
    scale, shift = (0.3 * mx.random.normal((shape[0], 1, shape[-1])) for _ in range(2))
    return [*(a.astype(dtype) for a in (x, scale, shift)), g]


def main() -> int:
    """Every size and dtype; 1 when an error is too large, 2 where the kernels can't run."""
    given = options(__doc__)
    if refused(lambda: modulated_norm.fits(mx.zeros((1, 1, 8)))):
        return 2
    cases = [(size, dtype) for size in SIZES for dtype in BOUND]
    if given.quick:
        cases = [((256, 768), mx.float32), ((256, 768), mx.bfloat16)]
    made = (({}, of, arguments_of((given.batch, *size), dtype), dtype) for size, dtype in cases)
    return report(made, (of, arguments_of((4, 9, 64), mx.float32)))


if __name__ == "__main__":
    sys.exit(main())
