"""Trains ARC's network (optimizers/arc_network.py) on small runs made here, and writes the file that ships.

usage: python scripts/train_arc.py out=models/weights/arc.safetensors

  out=PATH      the file to write
  groups=64     groups of 24 runs with random choices; half as many follow whose choices are mostly the network's
  epochs=20     passes over the examples, each time
  seed=0        of everything
  folder=PATH   keeps the examples there, and goes on with those that are there (outputs/arc)
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from optimizers.arc_network import CYCLES, FACTORS, POINTS, Controller, Cycle, features
from runtime.trees import flatten
from scripts.arc_runs import FAMILIES, Example, Policy, group
from scripts.arguments import at_least, command, ends_in, parse
from training import checkpoint

RUNS = 24  # of a group
EVALUATIONS = 4  # of a cycle, at most
BATCH = 256
WORST = 0.2  # of log losses: larger differences count no more
UNIT = 0.05  # of log losses, in which the network tells what a way saves
MARGIN = 0.004  # what a change of the rate must gain


@dataclass
class Settings:
    """The keys of the command line."""

    out: str = "???"
    groups: int = 64
    epochs: int = 20
    seed: int = 0
    folder: str = "outputs/arc"


def random_half(history: list[list[Cycle]], losses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of three ways at random, or, as often, the best."""
    count = losses.shape[1]
    return np.where(rng.random(count) < 0.5, losses.argmin(0), rng.integers(len(FACTORS), size=count))


def following(network: Controller) -> Policy:
    """A policy that goes where the network says, but one time in five at random."""

    def policy(history: list[list[Cycle]], losses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        chosen = np.array(network(mx.array(np.stack([features(own) for own in history]))).argmax(1))
        return np.where(rng.random(len(chosen)) < 0.2, rng.integers(len(FACTORS), size=len(chosen)), chosen)

    return policy


def collected(groups: range, policy: Policy, seed: int, folder: Path) -> list[Example]:
    """The examples of groups by number, the task families in turn; kept in the folder."""
    examples: list[Example] = []
    folder.mkdir(parents=True, exist_ok=True)
    for number in groups:
        file = folder / f"seed{seed}_group{number:03d}.npz"
        if not file.is_file():
            rng = np.random.default_rng([seed, number])
            made: Any = packed(
                list(group(FAMILIES[number % len(FAMILIES)], RUNS, int(rng.integers(8, 15)), policy, rng))
            )
            np.savez_compressed(file, **made)
        with np.load(file) as stored:
            examples += unpacked(**stored)
        print(f"group {number}: {len(examples)} examples", flush=True)
    return examples


def packed(examples: list[Example]) -> dict[str, np.ndarray]:
    """Arrays of the examples, NaN where there is nothing."""
    out = {"train": np.full((len(examples), CYCLES, POINTS), np.nan, np.float32),
           "evals": np.full((len(examples), CYCLES, EVALUATIONS), np.nan, np.float32),
           "rate": np.zeros((len(examples), CYCLES)), "losses": np.stack([one.losses for one in examples])}  # fmt: skip
    for row, example in enumerate(examples):
        for place, cycle in enumerate(example.cycles):
            out["train"][row, place], out["rate"][row, place] = cycle.train, cycle.rate
            out["evals"][row, place, : len(cycle.evals)] = cycle.evals
    return out


def unpacked(train: np.ndarray, evals: np.ndarray, rate: np.ndarray, losses: np.ndarray) -> list[Example]:
    """The examples of `packed` arrays."""
    return [
        Example([Cycle(train[i, k], evals[i, k], rate[i, k]) for k in range(CYCLES) if rate[i, k]], losses[i])
        for i in range(len(losses))
    ]


def costs(losses: np.ndarray) -> np.ndarray:
    """(N, 3) log losses (N, 3) above the best, held below WORST, and MARGIN more for a change; of positive losses."""
    logs = np.log(np.maximum(losses, 1e-12))
    above = np.minimum(np.nan_to_num(logs - logs.min(1, keepdims=True), posinf=WORST), WORST)
    return above + MARGIN * (np.array(FACTORS) != 1)


def trained(examples: list[Example], epochs: int, seed: int) -> Controller:
    """A network that tells what each way saves against their mean; one row in five has no evaluation losses."""
    mx.random.seed(seed)
    network, rng = Controller(), np.random.default_rng(seed)
    x = mx.array(np.stack([features(example.cycles) for example in examples]))
    blind = mx.array(np.stack([features([c._replace(evals=()) for c in example.cycles]) for example in examples]))
    cost = mx.array(costs(np.stack([example.losses for example in examples])).astype(np.float32))
    total = epochs * (len(examples) // BATCH)
    optimizer = optim.AdamW(optim.cosine_decay(2e-3, total), weight_decay=0.05)

    def loss(network: Controller, x: mx.array, cost: mx.array) -> mx.array:
        return mx.square(network(x) - (cost.mean(axis=1, keepdims=True) - cost) / UNIT).mean()

    state = [network.state, optimizer.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def step(x: mx.array, cost: mx.array) -> None:
        _, gradients = nn.value_and_grad(network, loss)(network, x, cost)
        optimizer.update(network, gradients)

    for _ in range(epochs):
        order = rng.permutation(len(examples))
        for rows in np.split(order[: total // epochs * BATCH], total // epochs):
            chosen, unseen = mx.array(rows), mx.array((rng.random((BATCH, 1, 1)) < 0.2).astype(np.float32))
            step(mx.where(unseen > 0, blind[chosen], x[chosen]), cost[chosen])
            mx.eval(state)
    return network


def work(arguments: list[str]) -> None:
    """Makes examples, trains, makes examples of what the network does, trains on all of them and writes the file."""
    given, _ = parse(arguments, Settings)
    at_least(2, groups=given.groups)
    at_least(1, epochs=given.epochs)
    ends_in((".safetensors",), out=given.out)
    folder = Path(given.folder)
    examples = collected(range(given.groups), random_half, given.seed, folder)
    network = trained(examples, given.epochs, given.seed)
    more = range(given.groups, given.groups + given.groups // 2)
    examples += collected(more, following(network), given.seed, folder)
    network = trained(examples, given.epochs, given.seed)
    arrays = {name: array.astype(mx.float16) for name, array in flatten(network.parameters()).items()}
    checkpoint.save(Path(given.out), arrays, {"kind": "arc", "examples": len(examples), "seed": given.seed,
                                              "source": checkpoint.provenance()})  # fmt: skip
    print(f"{given.out}: {Path(given.out).stat().st_size / 1e3:.0f} kB, of {len(examples)} examples")


if __name__ == "__main__":
    sys.exit(command(work, __doc__ or "", sys.argv[1:]))
