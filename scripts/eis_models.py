"""Trained predictors of impedance spectra: opened from a run, or from the small file that is made of it for use alone.

usage: python scripts/eis_models.py checkpoint=outputs/series out=models/weights/eis_series.safetensors

  checkpoint=PATH  a checkpoint or a run's folder (its newest)
  out=PATH         the file to write: weights in 16 bits, what they were trained on, a checksum
  ema=true         true: the first average kept; false: the plain weights; 0.999: the average of that decay
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
import mlx.nn as nn
from omegaconf import DictConfig, OmegaConf

from evaluation.eis_predictor import EISParameterCompleter, ProbabilisticEISPredictor
from models.eis_flow import EISFlow
from runtime import device as devices
from runtime.errors import UsageError
from scripts import exports
from scripts.arguments import command
from scripts.eis_flow import FlowPredictor
from training import exported
from training.experiment import load_run

SHIPPED = {name: exports.WEIGHTS / f"eis_{name}.safetensors" for name in ("series", "parallel")}
KIND = "eis_predictor"  # in the metadata of a file for use alone
NEEDED = ("encode", "cells", "inside", "sample", "log_residual")  # of a network that is no flow


def load(given: str | Path, device: str = "auto", ema: bool | float = True) -> EISParameterCompleter:
    """The predictor in a run's checkpoint, in an exported file, or one that is shipped ("series", "parallel").

    device: auto, gpu or cpu. ema: of a run, True for the first average kept, a decay, or False for the plain weights.
    Raises UsageError for a run of anything else, and where no weights are shipped.
    """
    devices.select(device)
    file = exports.found(given, SHIPPED)
    if (opened := exported.opened(file, KIND)) is not None:
        model, meta = opened
        return EISParameterCompleter(ProbabilisticEISPredictor(usable(model), **meta["trained_on"]))
    run = load_run(file, ema, data=False)
    return EISParameterCompleter(ProbabilisticEISPredictor(usable(run.model), **trained_on(run.config)))


def export(given: str | Path, out: str | Path, ema: bool | float = True) -> None:
    """Writes the predictor of a run for use alone (training/exported.py) with its training range."""
    run = load_run(given, ema, data=False)
    usable(run.model)
    exported.export(run, out, KIND, trained_on=trained_on(run.config))


def usable(model: nn.Module) -> nn.Module | FlowPredictor:
    """The model as a predictor takes it; raises UsageError for one without a joint density over circuits."""
    if isinstance(model, EISFlow):
        return FlowPredictor(model)
    if missing := [name for name in NEEDED if not hasattr(model, name)]:
        raise UsageError(f"predictions need a network with {missing[0]}(...), such as model=eis_predictor, "
                         f"or model=eis_flow; {type(model).__name__} has none.")  # fmt: skip
    return model


def trained_on(config: DictConfig) -> dict[str, Any]:
    """What a predictor takes beside its model, from a run's data."""
    data: Any = OmegaConf.to_container(config.dataloaders, resolve=True)["train_data"]  # type: ignore[call-overload, index]
    if data["_target_"] not in ("dataloaders.eis.Spectra", "dataloaders.eis_shards.StoredSpectra"):
        raise UsageError(f"predictions need a run trained on dataloaders=eis; this one's data are {data['_target_']}.")
    noise = data["noise"]
    levels = [noise, noise] if isinstance(noise, int | float) else noise
    return {"topology": data["topology"], "prior": "grid" if data["prior"] == "grid" else "continuous",
            "levels": [float(level) for level in levels], "rs": data["rs"], "low": data["low"],
            "high": data["high"]}  # fmt: skip


def work(arguments: list[str]) -> None:
    """Exports one predictor and says how large it is."""
    exports.work(arguments, export)


if __name__ == "__main__":
    sys.exit(command(work, __doc__ or "", sys.argv[1:]))
