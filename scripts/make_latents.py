"""Encodes a data set once into sharded latents, which dataloaders=imagenet_latents trains on.

usage: python scripts/make_latents.py model=vae dataloaders=imagenet [key=value ...]

  model=vae              an option of configs/model whose network has encode(x) -> (mean, std), with any of its keys
  checkpoint=PATH        or the network of a run, a checkpoint or a run's folder; ema=true|false|0.999 as in sample.py
  dataloaders=imagenet   an option of configs/dataloaders, with any of its keys; its ops are not applied
  out=data/imagenet_latents  gets train/00000.safetensors, ... and eval/...; shards that are there are kept
  flip=true              store the mirrored image's latents too
  rows=5000              of a shard
  batch=32               images encoded at once
  dtype=float16          of what is stored: float16 | float32
  device=auto            auto, gpu or cpu
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
import mlx.core as mx
import numpy as np

from runtime import device
from runtime.errors import UsageError
from runtime.instantiate import build
from scripts.arguments import at_least, command, parse, weights
from scripts.compose import compose
from training.experiment import load_run

DTYPES = {"float16": mx.float16, "float32": mx.float32}


@dataclass
class Settings:
    """The keys of the command line."""

    model: str | None = None
    checkpoint: str | None = None
    ema: str = "true"
    dataloaders: str = "imagenet"
    out: str = "data/imagenet_latents"
    flip: bool = True
    rows: int = 5000
    batch: int = 32
    dtype: str = "float16"
    device: str = "auto"


def work(arguments: list[str]) -> None:
    """Encodes every part of the data and says what was written."""
    given, changes = parse(arguments, Settings)
    at_least(1, rows=given.rows, batch=given.batch)
    if (given.model is None) == (given.checkpoint is None):
        raise UsageError("give either model=... or checkpoint=..., the network that encodes.")
    if given.dtype not in DTYPES:
        raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, got {given.dtype!r}.")
    device.select(given.device)  # type: ignore[arg-type]  # it refuses other words
    groups = [f"dataloaders={given.dataloaders}", *([f"model={given.model}"] if given.model else [])]
    config = compose(["run_name=make_latents", *groups, *(f"{key}={value}" for key, value in changes.items())])
    model: Any = load_run(given.checkpoint, weights(given.ema), data=False).model if given.checkpoint else None
    model = build(config.model) if model is None else model
    if not hasattr(type(model), "encode"):
        raise UsageError(f"{type(model).__name__} has no encode(x) -> (mean, std); needed an autoencoder such as vae.")
    model.train(False)
    on_gpu = mx.default_device().type == mx.DeviceType.gpu  # on a CPU making the kernels takes longer than it saves
    encode = mx.compile(model.encode) if on_gpu else model.encode
    config.dataloaders.batch_size = 1  # the training's; a data set may be smaller
    for mode, source in build(config.dataloaders).sources.items():
        write_part(encode, source, Path(given.out) / mode, given)


def write_part(encode, source, folder: Path, given: Settings) -> None:
    """Writes the shards of one source that are not there yet, each complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    began, written, count = time.perf_counter(), 0, -(-len(source) // given.rows)
    for number in range(count):
        file, rows = folder / f"{number:05}.safetensors", range(len(source))[number * given.rows :][: given.rows]
        if file.exists():
            continue
        parts = list(encoded(encode, source, rows, given))
        partial = file.with_name(f"{file.stem}.partial.safetensors.tmp")
        with partial.open("wb") as opened:
            mx.save_safetensors(opened, {name: mx.array(np.concatenate([p[name] for p in parts])) for name in parts[0]})
        partial.rename(file)
        written += len(rows)
        rate = written / (time.perf_counter() - began)
        print(f"{file}: {len(rows):,} rows, shard {number + 1} of {count}, {rate:,.0f} images/s", flush=True)
    print(f"{folder}: {len(source):,} rows in {count} shards, {written:,} of them written now")


def encoded(encode, source, rows: range, given: Settings) -> Iterator[dict[str, np.ndarray]]:
    """Means, deviations and labels of consecutive rows, batch by batch; the last batch is filled up for the encoder."""
    rng = np.random.default_rng(0)
    for start in range(0, len(rows), given.batch):
        part = np.array(rows[start : start + given.batch])
        full = np.concatenate([part, np.full(given.batch - len(part), part[0])])
        batch = source.take(full, rng)
        stored = {"label": batch["label"]} if "label" in batch else {}
        for ending, x in (("", batch["x"]), ("_flip", batch["x"][:, :, ::-1])):
            if ending and not given.flip:
                continue
            mean, std = encode(mx.array(np.ascontiguousarray(x)))
            stored |= {f"{name}{ending}": np.array(value.astype(DTYPES[given.dtype]))
                       for name, value in (("mean", mean), ("std", std))}  # fmt: skip
        for name, value in stored.items():
            if not np.isfinite(value).all():
                raise UsageError(f"the {name} of rows {part[0]}..{part[-1]} is not finite in {given.dtype}; "
                                 "try dtype=float32, or look at these images.")  # fmt: skip
        yield {name: value[: len(part)] for name, value in stored.items()}


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
