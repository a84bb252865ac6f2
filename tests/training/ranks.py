"""What two processes over a ring do for test_ranks.py, which runs `play` in one process at the doubled batch too."""

import json
import sys
from pathlib import Path

import runtime.blas  # noqa: F401

# isort: split
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from models.batch_norm import BatchNorm
from runtime.errors import UsageError
from runtime.op import ObjectiveOp
from runtime.slots import snapshot
from runtime.trees import count_parameters
from runtime.world import ALONE, World, joined
from tests.training.by_hand import KEY, Adam, Apply, Regression, mlp
from training import sharding
from training.network import Network
from training.step import TrainStep
from training.update import UpdateOp

ROWS, STEPS = 16, 10  # rows of a batch of all processes


class Blocks(nn.Module):
    """A residual network of a list of blocks, for sharding."""

    def __init__(self):
        super().__init__()
        mx.random.seed(4)
        self.enter, self.leave = nn.Linear(2, 6), nn.Linear(6, 2)
        self.blocks = [nn.Linear(6, 6) for _ in range(3)]
        mx.eval(self.parameters())

    def __call__(self, x):
        x = self.enter(x)
        for block in self.blocks:
            x = x + mx.tanh(block(x))
        return self.leave(x)


class Normed(nn.Module):
    """A batch norm before a linear layer, whose statistics are averaged."""

    def __init__(self):
        super().__init__()
        mx.random.seed(5)
        self.norm, self.leave = BatchNorm(2), nn.Linear(2, 2)
        mx.eval(self.parameters())

    def __call__(self, x):
        return self.leave(self.norm(x))


def own_batches(world: World, bad: int | None = None, count: int = STEPS):
    """This process's rows of every batch; in batch `bad` one row of the last process is NaN."""
    rng = np.random.default_rng(1)
    for number in range(count):
        batch = {"x": rng.normal(size=(ROWS, 2)), "y": rng.normal(size=(ROWS, 2))}
        if number == bad:
            batch["x"][-1] = np.nan
        yield {name: mx.array(a[world.rank :: world.size].astype(np.float32)) for name, a in batch.items()}


def trained(world, model, accumulate=1, bad=None, clip: float | None = 0.05, **options):
    """State arrays and losses after 10 steps."""
    update = UpdateOp(model, "loss", Adam, 1e-2, clip=clip, ema=[0.9])
    step = TrainStep(Network([ObjectiveOp(model, Regression()), update]), accumulate, world=world, **options)
    told = [step(batch, KEY, last=i % accumulate == accumulate - 1, asked=0b100 | world.rank)
            for i, batch in enumerate(own_batches(world, bad, STEPS * accumulate))]  # fmt: skip
    arrays = step.shards.whole(snapshot(step.state))
    return {**arrays, "losses": mx.stack([out["loss"] for out in told]), "asked": told[-1]["asked"]}


def two_losses(world):
    """Two models, a loss each, the gradient of the second given by an op."""
    first, second = mlp(1), mlp(2)

    def errors(data, ctx, first, second):
        wrong = (first(data["x"]) - data["y"]).square().mean()
        return {"a": wrong, "b": (second(data["x"]) - mx.stop_gradient(first(data["x"]))).square().mean()}

    ops = [
        Apply(["a", "b"], errors, first=first, second=second),
        UpdateOp(first, "a", Adam, 1e-2, clip=0.1, name="first"),
        UpdateOp(second, "b", Adam, 1e-2, name="second", merge_grad=2),
    ]
    step = TrainStep(Network(ops), world=world)
    for batch in own_batches(world):
        step(batch, KEY)
    return snapshot(step.state)


def carried(world):
    """A carry stays each process's own; it is the sum of the rows seen, and is not averaged."""
    model = mlp()

    def seen(data, ctx, model):
        loss = (model(data["x"]) - data["y"]).square().mean()
        return {"loss": loss, "sum": data["sum"] + data["x"].sum(axis=1)}

    step = TrainStep(
        Network([Apply(["loss", "sum"], seen, carry=("sum",), model=model), UpdateOp(model, "loss", Adam)]),
        world=world,
    )
    given = list(own_batches(world))
    step.start(given[0])
    for batch in given:
        step(batch, KEY)
    return {"sum": world.gathered(step.state["carry"]["sum"])}


def sharded(world):
    """Blocks under fsdp where there are two processes, else whole."""
    model = Blocks()
    if world.many:
        assert sharding.shard(model, World(world.rank, world.size, "nccl", world.group)) == 3
        assert sorted(dict(tree_flatten(model.blocks[0].parameters()))) == ["module.bias", "module.weight"]
        assert count_parameters(model.blocks[0]) == 3 * 6 + 3
    return trained(world, model)


def scattered(x, *, group, stream=None):
    """What the ring lacks: rows of the sum."""
    rows = x.shape[0] // group.size()
    return mx.distributed.all_sum(x, group=group)[group.rank() * rows : (group.rank() + 1) * rows]


CASES = {
    "plain": lambda world: trained(world, mlp(), clip=None),
    "uncompiled": lambda world: trained(world, mlp(), compile=False),
    "accumulated": lambda world: trained(world, mlp(), accumulate=3),
    "joined": lambda world: trained(world, mlp(), flatten=True),
    "not finite": lambda world: trained(world, mlp(), bad=4),
    "bf16": lambda world: trained(world, mlp(), precision="bf16"),
    "fp16": lambda world: trained(world, mlp(), precision="fp16"),
    "statistics": lambda world: trained(world, Normed(), clip=None),
    "two losses": two_losses,
    "carried": carried,
    "sharded": sharded,
}


def play(world: World) -> dict[str, dict[str, np.ndarray]]:
    """The arrays at the end of every case."""
    return {name: {k: np.asarray(a.astype(mx.float32) if a.dtype == mx.bfloat16 else a) for k, a in case(world).items()}
            for name, case in CASES.items()}  # fmt: skip


def talk(world: World) -> dict:
    """What the processes tell each other."""
    said = {"told": world.told({"from": world.rank, "é": [1.5, None]}), "nothing": world.told(None)}
    sent = world.sent({"a": mx.array([world.rank + 3.5]), "b": mx.array(world.rank == 0)})
    said |= {"sent": [sent["a"].item(), sent["b"].item()], "alone": ALONE.told(world.rank)}
    same = {"w": mx.arange(5), "b": mx.array([1.0, 2.0])}
    world.check_equal(same, "weights")
    for name, other in (("order", mx.array([2.0, 1.0])), ("bit", mx.array([1.0, 2.0000002]))):
        try:
            world.check_equal(same | {"b": other if world.rank else same["b"]}, "weights")
        except UsageError as error:
            said[name] = str(error)
    return said


def main() -> None:
    """Plays all cases and leaves what came out beside the file named on the command line."""
    mx.set_default_device(mx.Device(mx.cpu))
    world = joined(2, "ring")
    mx.distributed.sum_scatter = scattered
    folder, said = Path(sys.argv[1]), talk(world)
    (folder / f"said{world.rank}.json").write_text(json.dumps(said))
    for name, arrays in play(world).items():
        np.savez(folder / f"{name}{world.rank}.npz", allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
