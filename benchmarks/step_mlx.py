"""Times train steps on MLX: the real loop ("ours") and a bare mx.compile step, in turns in one process.

A worker of step_time.py; prints one JSON line a variant. Turns make the ratio fair where the machine's speed drifts.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import runtime.blas  # noqa: E402, F401  before mlx

# isort: split
import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
import numpy as np  # noqa: E402

from losses.flow_matching import FlowMatching  # noqa: E402
from losses.meanflow import MeanFlow  # noqa: E402
from models.dit import DiT  # noqa: E402
from models.mlp import MLP  # noqa: E402
from models.unet import UNet  # noqa: E402
from runtime import cuda_launch  # noqa: E402
from runtime.device import describe, select  # noqa: E402
from runtime.op import ObjectiveOp  # noqa: E402
from runtime.trees import count_parameters  # noqa: E402
from training.estimator import Estimator  # noqa: E402
from training.network import Network  # noqa: E402
from training.update import UpdateOp  # noqa: E402

# batch first
SHAPES = {"mlp": (1024, 2), "unet": (8, 32, 32, 3), "unet36": (128, 32, 32, 3), "dit_b": (64, 32, 32, 4)}
UNET = {"channels": 64, "multipliers": (1, 2, 2), "blocks": 1, "attention": ()}
UNET36 = {"channels": 128, "multipliers": (1, 2, 2), "blocks": 3, "attention": (16,)}  # 36.6M parameters
LOSSES = {
    "fm": FlowMatching, "mf25": lambda: MeanFlow(jvp_share=0.25), "mf100": lambda: MeanFlow(jvp_share=1.0)
}  # fmt: skip


def model_named(name: str) -> nn.Module:
    """The network of a benchmark, from seed 0."""
    mx.random.seed(0)
    shape = SHAPES[name][1:]
    kinds = {
        "mlp": lambda: MLP(shape, hidden=256, depth=3), "unet": lambda: UNet(shape, **UNET),
        "unet36": lambda: UNet(shape, **UNET36), "dit_b": lambda: DiT(shape),
    }  # fmt: skip
    return kinds[name]()


def adamw(learning_rate: float) -> optim.AdamW:
    """The optimizer of both variants."""
    return optim.AdamW(learning_rate=learning_rate, bias_correction=True)


class Batches:
    """A pipeline that gives the same batch for ever."""

    steps_per_epoch = 10**9

    def __init__(self, shape: tuple[int, ...]):
        self.batch = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}

    def get_ds_ids(self, mode: str) -> list[str]:
        """One data set without a name."""
        return [""]

    def ds_id_at(self, mode: str, number: int) -> str:
        """Always that one."""
        return ""

    def batches(self, mode: str, start: int):
        """An endless iterator."""
        while True:
            yield self.batch


def ours(name: str, loss: str = "fm", precision: str = "fp32"):
    """A function(steps) that trains through the estimator, as the launcher does (no traces)."""
    model = model_named(name)
    network = Network([ObjectiveOp(model, LOSSES[loss]()), UpdateOp(model, "loss", adamw, 1e-3)])
    estimator = Estimator(
        Batches(SHAPES[name]), network, epochs=None, max_steps=0, eval_every=None, precision=precision
    )
    return partial(advance, estimator), model


def advance(estimator: Estimator, steps: int) -> float:
    """Takes so many more steps and waits for them; seconds of one."""
    begin = time.perf_counter()
    estimator.total_steps = estimator.step + steps
    estimator.fit(warmup=False)
    mx.eval(estimator.train_step.state)
    return (time.perf_counter() - begin) / steps


def bare(name: str):
    """A function(steps) around the shortest compiled step that trains the same: no guard, norm or extras."""
    model, optimizer, pipeline = model_named(name), adamw(1e-3), Batches(SHAPES[name])
    optimizer.init(model.trainable_parameters())
    state = [model.state, optimizer.state]

    def loss_of(model, x1, key):
        noise_key, time_key = mx.random.split(key)
        x0 = mx.random.normal(x1.shape, key=noise_key)
        t = mx.random.uniform(shape=x1.shape[:1], key=time_key)
        wide = t.reshape(-1, *[1] * (x1.ndim - 1))
        out = model((1 - wide) * x0 + wide * x1, times=mx.stack([t, mx.ones_like(t)], axis=1))
        return mx.square(out - (x1 - x0)).mean()

    @partial(mx.compile, inputs=state, outputs=state)
    def step(x1, key):
        loss, gradients = nn.value_and_grad(model, loss_of)(model, x1, key)
        optimizer.update(model, gradients)
        return loss

    done = 0

    def run(steps: int) -> None:
        nonlocal done
        before = None
        batches = pipeline.batches("train", done)
        for _ in range(steps):
            loss = step(mx.array(next(batches)["x"]), mx.random.key(done))
            mx.async_eval(state, loss)
            if before is not None:
                mx.eval(before)
            before, done = loss, done + 1
        mx.eval(state)

    return run, model


def main() -> None:
    """Warms every variant up, then times them in turns for `--seconds`, at least three rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(SHAPES), default="mlp")
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument("--variants", default="ours,bare")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--loss", choices=sorted(LOSSES), default="fm", help="of ours; bare is flow matching")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of ours; bare is fp32")
    parser.add_argument("--compiler", choices=["mlx", "own"], default=cuda_launch.COMPILER, help="of our CUDA kernels")
    given = parser.parse_args()
    select(given.device)
    cuda_launch.COMPILER = given.compiler
    kinds = {"ours": lambda: ours(given.model, given.loss, given.precision), "bare": lambda: bare(given.model)}
    made = {name: kinds[name]() for name in given.variants.split(",")}
    begin = time.perf_counter()
    for run, _ in made.values():
        run(1)  # compiles
    first_step = round(time.perf_counter() - begin, 2)
    first, (run, _) = time.perf_counter(), next(iter(made.values()))
    run(1)
    steps = max(1, round(1.5 / (time.perf_counter() - first)))  # a turn takes 1.5 s: a fit has a start of its own
    times: dict[str, list[float]] = {name: [] for name in made}
    started = time.perf_counter()
    while time.perf_counter() - started < given.seconds or len(times[next(iter(made))]) < 3:
        made = dict(reversed(made.items()))  # who begins changes, so that a drift of the machine favours nobody
        for name, (run, _) in made.items():
            begin = time.perf_counter()
            run(steps)
            times[name].append(1e3 * (time.perf_counter() - begin) / steps)
    for name, (_, model) in made.items():
        line = {
            "variant": name, "model": given.model, "loss": given.loss, "precision": given.precision,
            "compiler": given.compiler, "batch": SHAPES[given.model][0], "first_step_s": first_step,
            "peak_gb": round(mx.get_peak_memory() / 1e9, 2),
            "parameters": count_parameters(model),
            "median_ms": round(statistics.median(times[name]), 3), "best_ms": round(min(times[name]), 3),
            "turns": len(times[name]), "steps_a_turn": steps, **describe(), "python": platform.python_version(),
            "numpy": version("numpy"),
            "threads": os.environ.get("OPENBLAS_NUM_THREADS", f"half of {os.cpu_count()}"),
            "turns_ms": [round(value, 3) for value in times[name]],
        }  # fmt: skip
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
