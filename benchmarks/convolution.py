"""A CPU's convolutions as matrix products against MLX's: processor time of value, input gradient, weight gradient.

python benchmarks/convolution.py [--turns 9] [--quick]

A JSON line a size: ms (the least of the turns, both in turns in one process), ours over MLX's and the largest error
relative to the largest number; exit status 1 where an error exceeds 3e-6. `places` says where a product for each place
of the window was chosen (models/convolution_products.pays), not one of all windows. MLX's weight gradient here is its
own, unfolded patches.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import runtime.blas  # noqa: F401  before mlx

# isort: split
import mlx.core as mx

from models import convolution_products
from models.convolution_forms import Geometry, correlate, overlap, spread

# batch, pixels a side, channels in and out, padding, stride; all windows are 3 x 3
SIZES = [
    (128, 28, 1, 32, 0, 1), (128, 28, 3, 32, 1, 1), (64, 28, 16, 16, 1, 1), (128, 13, 32, 64, 0, 1),
    (128, 5, 64, 64, 0, 1), (8, 64, 32, 32, 1, 1), (8, 32, 64, 64, 1, 1), (8, 16, 128, 128, 1, 1),
    (8, 8, 256, 256, 1, 1), (8, 32, 64, 64, 1, 2), (8, 16, 128, 128, 1, 2),
]  # fmt: skip
BOUND = 3e-6


def milliseconds(functions: list, turns: int) -> list[float]:
    """The least processor time of each function, called in turns."""
    best = [float("inf")] * len(functions)
    for _ in range(turns + 1):  # the first warms up
        for i, function in enumerate(functions):
            begin = time.process_time()
            mx.eval(function())
            best[i] = min(best[i], 1e3 * (time.process_time() - begin))
    return best


def chosen(call) -> list[bool]:
    """What `pays` said while the function ran."""
    said, judge = [], convolution_products.pays

    def listening(*given):
        said.append(judge(*given))
        return said[-1]

    convolution_products.pays = listening
    mx.eval(call())
    convolution_products.pays = judge
    return said


def measured(size: tuple, turns: int) -> dict:
    """The line of one size."""
    batch, side, channels, outputs, padding, stride = size
    mlx = Geometry((stride,) * 2, (padding,) * 2, (1, 1))
    ours = mlx._replace(products=True)
    x = mx.random.normal((batch, side, side, channels))
    w = mx.random.normal((outputs, 3, 3, channels)) / (9 * channels) ** 0.5
    y = mx.random.normal(correlate(mlx)(x, w).shape)
    mx.eval(x, w, y)
    forms = {
        "value": lambda g: correlate(g)(x, w),
        "input": lambda g: spread(g, (side, side))(y, w),
        "weights": lambda g: overlap(g, (3, 3))(x, y),
    }
    line: dict = dict(zip(("batch", "side", "channels", "outputs", "padding", "stride"), size, strict=True))
    for name, form in forms.items():
        wanted = form(mlx)
        error = float(mx.abs(form(ours) - wanted).max()) / float(mx.abs(wanted).max())
        theirs, mine = milliseconds([lambda f=form: f(mlx), lambda f=form: f(ours)], turns)
        line[name] = {"mlx_ms": round(theirs, 2), "ours_ms": round(mine, 2), "ratio": round(mine / theirs, 3),
                      "places": chosen(lambda f=form: f(ours)), "error": error}  # fmt: skip
    return line


def main() -> int:
    """Every size; 1 when an error is too large."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="the first size alone")
    given = parser.parse_args()
    mx.set_default_device(mx.cpu)
    lines = []
    for size in SIZES[: 1 if given.quick else None]:
        lines.append(measured(size, given.turns))
        print(json.dumps(lines[-1]), flush=True)
    worst = max(line[name]["error"] for line in lines for name in ("value", "input", "weights"))
    print("ALL PASS" if worst < BOUND else f"FAIL: largest error {worst:.1e}")
    return int(worst >= BOUND)


if __name__ == "__main__":
    sys.exit(main())
