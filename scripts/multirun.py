"""Hydra's multirun as a sweep: each job a trial in a process of its own, marked when it crashes; a table at the end.

Hydra's sweeper chooses the jobs and its launcher (hydra/launcher=...) places them; job n is <output_dir>/<run_name>/n.
"""

import math
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import runtime.blas  # noqa: F401  before mlx: a worker of a launcher imports this module first

# isort: split
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from runtime.errors import UsageError
from scripts.compose import quoted, run_name_of
from scripts.sweep_folder import begun, configs_of, enter, settings_of
from scripts.sweep_report import conclude
from scripts.sweeps import checked, point_overrides, read_sweeps
from scripts.trials import CHECKED, Processes, Trial
from training.estimator import Interrupted
from training.signals import caught

ROOT = Path(__file__).resolve().parent.parent


def multirun(arguments: list[str]) -> int:
    """Runs all jobs that have not ended; the exit status: 0, or 1 if a job crashed. UsageError for mistakes."""
    import hydra

    # a launcher's workers (Slurm's, say) start in another folder and must find this module
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    given = [text for text in arguments if not text.startswith("-")]
    hydras = [text for text in given if text.lstrip("+~").startswith(("hydra.", "hydra/"))]
    if moved := [text for text in hydras if text.startswith(("hydra.sweep.", "hydra.run."))]:
        raise UsageError(f"a sweep's folder is <output_dir>/<run_name>, got {moved[0]}; give these two instead.")
    space, fixed = read_sweeps([text for text in given if text not in hydras])
    again = [text for text in fixed if text.startswith(("resume=", "overwrite="))]
    name = run_name_of(fixed)
    if name is None:
        raise UsageError("run_name is missing; name your sweep, for example: run_name=rates.")
    config = checked(space, fixed)
    folder = Path(config.output_dir) / name
    if begun(folder) and not config.resume and not config.overwrite:
        raise UsageError(
            f"{folder} holds a sweep already; go on with resume=true, replace it with overwrite=true or choose another "
            "run_name."
        )
    described = {"method": "hydra", "sweeps": {key: str(values) for key, values in space.items()}}
    left = [quoted(text) for text in arguments if text not in again]
    with enter(folder, described, config.overwrite):
        argv, sys.argv = sys.argv, [sys.argv[0], *left]
        try:
            hydra.main(config_path=str(configs_of(folder).resolve()), config_name="train", version_base="1.3")(job)()
        finally:
            sys.argv = argv
            found = conclude(folder, CHECKED)
    return int(any(record["status"] != "finished" for record in found))


def job(config: DictConfig) -> float:
    """One job; its held-out loss, NaN for one that crashed, so that sweepers of any kind go on."""
    multiprocessing.set_start_method("spawn", force=True)  # joblib's workers have a way that their children don't know
    hydras: Any = HydraConfig.get()
    overrides, processes = list(hydras.overrides.task), Processes()
    sweep = Path(hydras.sweep.dir)
    given = dict(text.split("=", 1) for text in overrides if "=" in text)
    values = {key: _plain(given[key]) for key in settings_of(sweep)["sweeps"]}
    trial = Trial(sweep, hydras.job.num, tuple(overrides), values)
    try:
        with caught(processes):
            record = processes.run(trial)
    except Interrupted as stop:
        sys.exit(128 + stop.signal)  # ends Hydra's sweep, which would go on after an exception
    if record["status"] == "crashed":
        print(f"job {trial.number} ({' '.join(point_overrides(values))}) failed: {record['error']}", file=sys.stderr)
    return record["metrics"].get(CHECKED, math.nan)


def _plain(text: str) -> Any:
    """An override's value, a list or dictionary as text."""
    value = OmegaConf.from_dotlist([f"value={text}"])["value"]
    return value if value is None or isinstance(value, bool | int | float | str) else text
