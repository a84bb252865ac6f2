"""Images a second from one evaluation of the network (MeanFlow in one jump): one JSON line.

python benchmarks/sampling.py [--model unet36|dit_b|unet] [--device cpu] [--batch 256] [--seconds 10] [--precision bf16]
"""

import argparse
import json
import statistics
import time

from step_mlx import SHAPES, model_named

# isort: split
import mlx.core as mx
from mlx.utils import tree_map

from losses.meanflow import MeanFlow
from runtime.device import describe, select
from runtime.trees import count_parameters
from solvers.average import Average


def main() -> None:
    """Two warm-up batches, then batches for `--seconds`, at least three; the median counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["unet", "unet36", "dit_b"], default="unet36")
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    given = parser.parse_args()
    select(given.device)
    model, objective, solver = model_named(given.model), MeanFlow(), Average(steps=1)
    if given.precision == "bf16":
        model.update(tree_map(lambda p: p.astype(mx.bfloat16), model.parameters()))
    noise = mx.random.normal((given.batch, *SHAPES[given.model][1:]))
    jump = mx.compile(lambda noise: objective.average_velocity(model)(noise, mx.array(0.0), mx.array(1.0)) + noise)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - started < given.seconds:
        begin = time.perf_counter()
        mx.eval(jump(noise))
        times.append(time.perf_counter() - begin)
    exact = objective.sample(model, noise[:2], solver)
    assert mx.allclose(exact, jump(noise)[:2], atol=0.05).item(), "the compiled jump is not the solver's"
    line = {"model": given.model, "parameters": count_parameters(model), "precision": given.precision,
            "batch": given.batch, "images_per_s": round(given.batch / statistics.median(times[2:]), 1),
            **describe()}  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
