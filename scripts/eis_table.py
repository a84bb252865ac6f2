"""One table of methods that find circuits behind impedance spectra, all on the same fresh spectra.

python scripts/eis_table.py topology=series noise=0.01 count=2000 [checkpoint=outputs/eis_series_grid] [grid=true] [...]

On the grid: chance, the network without a spectrum, least-squares fits from mid-grid and by projection (no start), the
network, the network's list weighed by the exact likelihood, and the exact posterior (50 ms a spectrum; kept on disk).
Off it (grid=false): these fits and that from the truth, the network, and the network's draws weighed by the exact
likelihood.

  topology=series        series or parallel
  noise=0.01             relative size, modulus noise
  count=2000             spectra
  rs=null                largest series resistance, ohm (log-uniform); null: what the network knows, else none
  points=50              frequencies of each, from 1 Hz to 1 MHz
  grid=true              circuits on the 12-point grid; false: anywhere in its range
  checkpoint=PATH        of the network, or a shipped one's name (series, parallel); null: its rows are left out
  no_spectrum=PATH       of a run of experiment=eis_no_spectrum; null: its row is left out
  width=128              circuits that the network's list holds
  samples=500            circuits drawn for each spectrum off the grid
  seed=0                 of the spectra
  out=table.json         also write all scores there
  device=auto            auto, gpu or cpu
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
import numpy as np

from dataloaders.eis import Spectra
from domains.eis import canonical_indices, invariants, nearest_indices
from evaluation.eis import beside, oracle_scores, residual_correlation
from evaluation.eis_methods import (
    Observed,
    fitted,
    guessed,
    invariant_errors,
    least_squares,
    projected,
    ranked,
    reconstruction,
    three_known,
    uniform,
)  # fmt: skip
from evaluation.eis_predictor import ProbabilisticEISPredictor
from evaluation.eis_ranking import predicted, reweighted
from evaluation.eis_samples import densities, drawn, exact_draws, near_the_truth, posterior_scores
from runtime import device
from runtime.errors import UsageError
from scripts.arguments import at_least, command, ends_in, parse
from scripts.eis_models import load
from training.experiment import load_run
from visualizers.canvas import write

Scores = dict[str, float]
SHOWN = (  # column, score
    ("top-1", "top1"), ("top-5", "top5"), ("top-1 merged", "merged_top1"), ("of oracle", "merged_top1_of_oracle"),
    ("NLL", "nll"), ("NLL merged", "merged_nll"), ("ECE", "merged_ece"), ("(chance)", "merged_ece_floor"),
    ("3 known: top-1", "completion_top1"), ("top-5", "completion_top5"), ("of oracle", "completion_top1_of_oracle"),
    ("NLL", "completion_nll"), ("|dZ|/|Z|", "residual"), ("best of 10", "residual_best10"),
)  # fmt: skip
SHOWN_OFF = (
    ("top-1 merged", "merged_top1"), ("top-5 merged", "merged_top5"), ("of oracle", "merged_top1_of_oracle"),
    ("NLL merged", "merged_nll"), ("ECE", "merged_ece"), ("(chance)", "merged_ece_floor"),
    ("50% least", "least_coverage50"), ("most", "most_coverage50"), ("90% least", "least_coverage90"),
    ("most", "most_coverage90"), ("least SBC p", "least_sbc_chance"), ("error/fit", "worst_error_of_fit"),
    ("|dZ|/|Z|", "residual"), ("best of 10", "residual_best10"), ("effective 1%", "effective_1%"),
)  # fmt: skip


@dataclass
class Settings:
    """The keys of the command line."""

    topology: str = "series"
    noise: float = 0.01
    count: int = 2000
    rs: float | None = None
    points: int = 50
    grid: bool = True
    checkpoint: str | None = None
    no_spectrum: str | None = None
    width: int = 128
    samples: int = 500
    seed: int = 0
    out: str | None = None
    device: str = "auto"


def on_grid(given: Settings, observed: Observed, model: Any, blind: Any) -> dict[str, Scores]:
    """The scores of each method on grid circuits."""
    nothing = np.zeros_like(observed.mask)
    rows = {"chance": uniform()}
    if blind is not None:
        rows["network without spectrum"] = ranked(
            observed, None, predicted(blind, observed.x, observed.cells, observed.mask)
        )
    rows["fit from mid-grid"] = least_squares(observed)
    rows["fit by projection"] = guessed(observed, projected(observed))
    if model is not None:
        own = [predicted(model, observed.x, observed.cells, mask, given.width) for mask in (nothing, observed.mask)]
        rows["network"] = ranked(observed, *own)
        sure = [reweighted(part, observed.cells, observed.frequencies, observed.z, observed.topology, observed.level)
                for part in own]  # fmt: skip
        rows["network + likelihood"] = ranked(observed, *sure)
    best = oracle_scores(observed)
    return {name: beside(scores, best) for name, scores in rows.items()} | {"exact posterior": beside(best, best)}


def off_grid(given: Settings, observed: Observed, model: Any) -> dict[str, Scores]:
    """The scores of each method on circuits anywhere; the exact posterior is sampled, starting about the truth."""
    rng = np.random.default_rng([given.seed, 8])
    rows = {"fit from mid-grid": fit_scores(observed, fitted(observed)),
            "fit by projection": fit_scores(observed, projected(observed)),
            "fit from the truth": fit_scores(observed, fitted(observed, observed.parameters))}  # fmt: skip
    if model is not None:
        places, log_q = drawn(model, observed, given.samples, given.seed)
        rows["network"] = densities(model, observed) | posterior_scores(observed, places)
        rows["network + likelihood"] = sampled(observed, places, log_q, given.samples, rng)
    best = sampled(observed, *near_the_truth(observed, given.samples, rng), given.samples, rng)
    rows["exact posterior"] = best
    return {name: beside(scores, best) | summary(scores, rows["fit from the truth"]) for name, scores in rows.items()}


def fit_scores(observed: Observed, found: np.ndarray) -> Scores:
    """The scores of one guess (N, 5) for each spectrum."""
    same = canonical_indices(nearest_indices(found)) == canonical_indices(observed.cells)
    errors = invariant_errors(invariants(found, observed.topology), observed.parameters, observed.topology)
    residual = float(np.median(reconstruction(observed, found[:, None])))
    return {"merged_top1": float(same.all(axis=1).mean()), "residual": residual, **errors}


def sampled(observed: Observed, places: np.ndarray, log_q: np.ndarray, count: int, rng: np.random.Generator) -> Scores:
    """The scores of draws weighed by the exact likelihood, with their effective sizes' quantiles."""
    weighted, origin, effective, exact = exact_draws(observed, places, log_q, count, rng)
    low, middle = np.quantile(effective, [0.01, 0.5])
    found = posterior_scores(observed, weighted, origin=origin)
    return exact | found | {"effective_1%": float(low), "effective_50%": float(middle)}


def summary(scores: Scores, fit: Scores) -> Scores:
    """The extremes over parameters and invariants of coverage, the ranks' chance and errors over those of a fit."""
    found = {}
    for kind in ("coverage50", "coverage90", "sbc_chance"):
        own = [value for name, value in scores.items() if name.startswith(f"{kind}_")]
        found |= {f"least_{kind}": min(own), f"most_{kind}": max(own)} if own else {}
    errors = {name: scores[name] / fit[name] for name in fit if name.startswith("error_") and name in scores}
    return (
        found
        | {f"{name}_of_fit": value for name, value in errors.items()}
        | {"worst_error_of_fit": max(errors.values())}
    )


def lines(rows: dict[str, Scores], shown: Sequence[tuple[str, str]]) -> list[str]:
    """The table as aligned text, one line a method; what a method does not give is a dash."""
    first = max(len(name) for name in rows) + 2
    widths = [max(len(title), 7) + 2 for title, _ in shown]
    table = {"": [title for title, _ in shown]}
    table |= {name: [f"{scores[key]:.4f}" if key in scores else "-" for _, key in shown] for name, scores in
              rows.items()}  # fmt: skip
    return [f"{name:<{first}}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
            for name, cells in table.items()]  # fmt: skip


def trained(given: Settings) -> ProbabilisticEISPredictor:
    """The predictor of the checkpoint; UsageError where it learned other circuits than those asked for."""
    found = load(str(given.checkpoint), given.device).predictor
    for what, own, asked in (("topology", found.topology, given.topology),
                             ("grid", str(found.prior == "grid").lower(), str(given.grid).lower())):  # fmt: skip
        if own != asked:
            raise UsageError(f"{given.checkpoint} was trained for {what}={own}, got {what}={asked}.")
    return found


def work(arguments: list[str]) -> None:
    """Makes the spectra, scores every method, prints the table and writes the file asked for."""
    given, _ = parse(arguments, Settings)
    at_least(20, count=given.count, samples=given.samples)
    at_least(10, width=given.width)
    ends_in((".json",), out=given.out)
    device.select(given.device)
    if not given.noise > 0:
        raise UsageError(f"noise must be above 0, got {given.noise}.")
    predictor = trained(given) if given.checkpoint else None
    rs = (predictor.rs[1] if predictor else 0.0) if given.rs is None else given.rs
    if rs and (given.grid or given.topology == "series"):
        raise UsageError(f"rs={rs:g} needs grid=false and topology=parallel (in series, Rs is part of Rsh).")
    prior = "grid" if given.grid else "continuous"
    source = Spectra(topology=given.topology, noise=given.noise, points=given.points, prior=prior, rs=rs)
    rng = np.random.default_rng([given.seed, 7])
    batch = source.take(np.arange(given.count), rng)
    mask = three_known(given.count, rng)
    observed = Observed(batch["x"], batch["target"], mask, given.topology, given.noise, rs)
    model = predictor.model if predictor else None
    blind = load_run(given.no_spectrum, data=False).model if given.no_spectrum else None
    rows = on_grid(given, observed, model, blind) if given.grid else off_grid(given, observed, model)
    print("\n".join(lines(rows, SHOWN if given.grid else SHOWN_OFF)))
    if model is not None:
        correlation = residual_correlation(model, batch)
        rows["network"]["residual_spearman"] = correlation
        print(f"rank correlation of predicted and true residual: {correlation:.4f}")
    if given.out is not None:
        record = {"settings": asdict(given), "scores": rows}
        write(given.out, lambda path: path.write_text(json.dumps(record, indent=2) + "\n"))
        print(f"scores: {given.out}")


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
