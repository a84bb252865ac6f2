"""Which pictures suit a run, by name, told from its checkpoint; what visualizers/render.py draws."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from losses.autoencoder import AutoencoderLoss
from runtime import device
from runtime.errors import UsageError, closest
from runtime.run import Run
from scripts import eis_pictures, pictures
from scripts.arguments import at_least, parse, weights
from scripts.class_pictures import classifier
from scripts.sampling import add_data, check_samples, labels
from solvers.dopri5 import Dopri5
from training.experiment import as_run, open_learner
from training.learner import Learner
from visualizers.curves import read_metrics
from visualizers.eis import draw_folder, draw_spectrum
from visualizers.logs import Series, compare_runs
from visualizers.puzzles import PuzzlePicture, animate, draw_answers
from visualizers.reconstructions import ReconstructionPicture

Draw = Callable[[Path], Any]  # writes one file, whose name it is given
FORMATS = ("gif", "mp4", "png")
MOST = 12  # panels of the training curves
DETAILED = 2  # spectra with a picture of their own


@dataclass
class Settings:
    """The keys of the command line."""

    run: str = "???"
    out: str | None = None
    kind: str | None = None
    format: str = "gif"
    steps: int = 4
    ema: str = "true"
    seed: int = 0
    device: str = "auto"


def flows(run: Run, given: Settings) -> dict[str, Draw]:
    """Of a generative run: points of the plane or images."""
    check_samples(run)
    add_data(run, needed=True, label=None)
    pictures.check(run, "samples.png", "denoising.gif", None, None)
    plane = len(run.pipeline.shape) == 1
    count = pictures.POINTS // 2 if plane else pictures.IMAGES
    noise = run.pipeline.noise(count, np.random.default_rng(given.seed))
    known = labels(run, count, given.seed, "uniform" if "label" in run.objective.conditions else None)

    @cache
    def samples() -> np.ndarray:
        return run.samples(count, given.seed, count if plane else 256, **known)

    def moving(path: Path, film: bool) -> Path:
        own, run.solver = run.solver, Dopri5(rtol=1e-4, atol=1e-4)  # a jump would be a film of two frames
        try:
            return pictures.draw_trajectories(run, noise, known, str(path), film=film)
        finally:
            run.solver = own

    chosen: dict[str, Draw] = {
        "samples.png": lambda path: pictures.draw_samples(run, samples(), known, str(path)),
        "comparison.png": lambda path: pictures.draw_comparison(run, noise, known, str(path), given.steps),
        f"denoising.{given.format}": partial(moving, film=True),
    }
    if not plane:
        return chosen | {"neighbours.png": lambda path: pictures.draw_neighbours(run, samples(), str(path))}
    chosen["paths.png"] = partial(moving, film=False)
    if not known:
        chosen["field.png"] = lambda path: pictures.draw_field(run, None, str(path))
    if pictures.has_average(run):
        chosen["jumps.png"] = lambda path: pictures.draw_jumps(run, noise, known, str(path))
    return chosen


def puzzles(run: Run, given: Settings) -> dict[str, Draw]:
    """Of a model of puzzles: its answers to held-out ones, and how they come about."""
    add_data(run, needed=True, label=None)
    if not len(run.pipeline.sources.get("eval", ())):
        raise UsageError("nothing is held out of this run's puzzles.")
    picture: Any = PuzzlePicture()
    found = cache(lambda: picture.answers(run))
    film = "solving.png" if given.format == "png" else f"puzzles.{given.format}"
    return {
        "puzzles.png": lambda path: draw_answers(*found(), path=path),
        film: lambda path: animate(*found(), path=path),
    }


def spectra(run: Run, given: Settings) -> dict[str, Draw]:
    """Of a predictor of circuits: held-out spectra with the circuits found, and their bands."""
    add_data(run, needed=True, label=None)
    found = eis_pictures.analysed(run, given.seed)
    chosen: dict[str, Draw] = {"spectra.png": partial(draw_folder, found)}
    for number, picture in enumerate(found[:DETAILED], 1):
        chosen[f"spectrum_{number}.png"] = partial(draw_spectrum, picture)
    return chosen


def reconstructions(run: Run, _: Settings) -> dict[str, Draw]:
    """Of an autoencoder: held-out images above what it makes of them."""
    add_data(run, needed=True, label=None)
    return {"reconstructions.png": lambda path: ReconstructionPicture()(run, path.parent, path.stem)[0]}


def classes(run: Run, learns: Learner) -> dict[str, Draw]:
    """Of a classifier: confusion matrix, worst mistakes, saliency; nothing where the network is none."""
    found = classifier(run, learns)
    if found is None:
        return {}
    add_data(run, needed=True, label=None)
    return {f"{name}.png": draw for name, draw in found.drawings.items()}


def suits(run: Run, learns: Learner, given: Settings) -> dict[str, Draw]:
    """The pictures of what the run has learnt, by file name; UsageError where none can be drawn, saying why."""
    data = str(OmegaConf.select(run.config, "dataloaders.train_data._target_"))
    if hasattr(run.objective, "rollout"):
        return puzzles(run, given)
    if isinstance(run.objective, AutoencoderLoss):
        return reconstructions(run, given)
    if data.startswith("dataloaders.eis"):
        eis_pictures.usable(run.model)
        return spectra(run, given)
    if run.config.loss is None:
        return classes(run, learns)
    return flows(run, given)


def curves(metrics: Path) -> dict[str, Draw]:
    """The curves of what the run has logged: losses, metrics and rates that are no constants; {} without any."""
    series = read_metrics(metrics) if metrics.is_file() else {}
    names = curved(series)
    return {"curves.png": lambda path: compare_runs({"run": series}, path, names, legend=False)} if names else {}


def curved(series: Series) -> list[str]:
    """The metrics worth a curve: logged twice or more with more than one value, at most `MOST`, the losses first."""
    names = [name for name, (steps, values) in series.items() if "/" in name and not name.startswith("perf/")
             and not name.endswith("_floor") and len(steps) > 1 and np.ptp(values) > 0]  # fmt: skip
    return sorted(names, key=lambda name: ("loss" not in name, name))[:MOST]


def chosen(known: dict[str, Draw], kinds: str | None) -> dict[str, Draw]:
    """The pictures whose names, without suffix, are in kinds (a,b,c); None: all. UsageError for one there isn't."""
    if kinds is None:
        return known
    names = {Path(file).stem for file in known}
    for kind in kinds.split(","):
        if kind not in names:
            raise UsageError(f"this run has no picture {kind!r}; nearest: {closest(kind, sorted(names))}; all: "
                             f"{', '.join(sorted(names))}.")  # fmt: skip
    return {file: draw for file, draw in known.items() if Path(file).stem in kinds.split(",")}


def work(arguments: list[str]) -> None:
    """Draws the pictures and prints their paths."""
    given, _ = parse(arguments, Settings)
    at_least(2, steps=given.steps)
    at_least(0, seed=given.seed)
    if given.format not in FORMATS:
        raise UsageError(f"format must be {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, got {given.format!r}.")
    device.select(given.device)  # type: ignore[arg-type]  # it refuses other words
    if not Path(given.run).exists():
        raise UsageError(f"there is no run {given.run}; needed: a run's folder or a checkpoint.")
    file, meta, config, learns = open_learner(given.run, weights(given.ema))
    run = as_run(file, meta, config, learns, data=False)
    home: Any = run.folder
    known = curves(home / "metrics.jsonl")
    try:
        known = suits(run, learns, given) | known
    except UsageError as error:
        if not known:
            raise
        print(f"note: curves only: {error}")
    if not known:
        raise UsageError(f"{home} has logged nothing that moved, and no pictures suit its network.")
    folder = Path(given.out) if given.out else home / "pictures"
    for name, draw in chosen(known, given.kind).items():
        print(draw(folder / name) or folder / name)
