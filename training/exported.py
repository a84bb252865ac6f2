"""Small files of a trained model for use alone: weights in 16 bits, its config, what its user must know, a checksum."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from omegaconf import OmegaConf

from runtime.errors import UsageError
from runtime.instantiate import build
from runtime.run import Run
from runtime.trees import flatten
from training import checkpoint

ROWS = "table.rows"  # of a model with embeddings of puzzles


def export(run: Run, out: str | Path, kind: str, **about: Any) -> None:
    """Writes the model of a run in float16; raises UsageError for weights that are too large for it.

    kind: what can read the file. about: what goes with it, JSON-able.
    """
    arrays = {name: array.astype(mx.float16) for name, array in flatten(run.model.parameters()).items()}
    if (table := getattr(run.model, "table", None)) is not None:
        arrays[ROWS] = table.state["rows"].astype(mx.float16)
    if broken := [name for name, array in arrays.items() if not mx.isfinite(array).all().item()]:
        raise UsageError(f"the weights {broken[0]} are not finite in 16 bits; needed: values up to 65504.")
    meta = {"kind": kind, "model": OmegaConf.to_container(run.config.model, resolve=True),
            "plugins": list(run.config.plugins), "step": run.step, "source": run.info.get("provenance")}  # fmt: skip
    checkpoint.save(Path(out), arrays, meta | about)


def opened(file: Path, kind: str) -> tuple[nn.Module, dict[str, Any]] | None:
    """The model of an exported file in float32 and what is told about it; None for a run's checkpoint.

    Raises UsageError for a file of another kind.
    """
    if "config" in checkpoint.metadata(file):  # its arrays, averages and carry may be many times the model's
        return None
    arrays, meta = checkpoint.load(file)
    if meta.get("kind") != kind:
        raise UsageError(f"{file} is no run's checkpoint and no exported model of kind {kind}.")
    model: Any = build(meta["model"], plugins=tuple(meta["plugins"]))
    if ROWS in arrays:
        model.table.state["rows"] = arrays.pop(ROWS).astype(mx.float32)
    model.load_weights([(name, array.astype(mx.float32)) for name, array in arrays.items()])
    model.train(False)
    mx.eval(model.parameters())
    return model, meta
