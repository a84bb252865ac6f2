"""The evaluator of circuit predictors: how often, how surely and how exactly they find a spectrum's circuit."""

from hashlib import sha256

import mlx.core as mx
import numpy as np

from domains.eis import invariants
from evaluation.eis_methods import Observed, fitted, invariant_errors, ranked, three_known
from evaluation.eis_oracle import GridOracle
from evaluation.eis_ranking import exact, predicted
from evaluation.eis_samples import contexts, densities, drawn, posterior_scores
from evaluation.evaluator import Evaluator, counted, draw_rows
from evaluation.statistics import Statistics, kept
from runtime.errors import UsageError
from runtime.op import NumpyBatch
from runtime.run import Run

# as it is, top1 tosses a coin between twins, for the oracle too: no share of it is taken
ACCURACIES = ("top5", "top10", "merged_top1", "completion_top1", "completion_top5")
LIKELIHOODS = ("nll", "merged_nll", "completion_nll")


class CircuitRecovery(Evaluator):
    """Judges a predictor on fresh spectra (N, P, 4) of the held-out kind, beside what can be reached at all.

    Circuits on the grid: the scores of evaluation.eis_ranking without known parameters and with three ("completion_"),
    the exact oracle's ("..._oracle"), accuracies as parts of the oracle's ("..._of_oracle") and "nll_gap", in nats.
    Off the grid: those of evaluation.eis_samples, and invariants' errors as multiples of a fit's that starts from the
    truth ("..._of_fit"). Both: "residual_spearman", the rank correlation of the predicted and the true residual. Where
    the network gives NaN that share of spectra is all there is, "nonfinite_spectra". Every name ends in the count.

    count: spectra. oracle: whether to enumerate (50 ms a spectrum). samples: circuits drawn for each spectrum.
    """

    def __init__(self, count: int = 2_000, oracle: bool = True, samples: int = 500, seed: int = 0):
        if count < 20 or samples < 20:
            raise UsageError(f"CircuitRecovery needs count and samples of at least 20, got {count} and {samples}.")
        self.count, self.oracle, self.samples, self.seed = count, oracle, samples, seed

    def check(self, pipeline) -> None:
        """Raises UsageError for data that are no spectra, or such of grid circuits as the oracle can't enumerate."""
        source = pipeline.sources["eval"]
        if not hasattr(source, "topology") or source.blank == 1:
            raise UsageError(f"evaluation=eis judges predictors of spectra (dataloaders=eis, blank below 1), got "
                             f"{type(source).__name__}.")  # fmt: skip
        wanted = {"fixed": True, "kinds": ("modulus",), "rs": 0.0, "blank": 0.0, "quietest": source.loudest}
        enumerable = all(getattr(source, name) == value for name, value in wanted.items()) and source.loudest
        if source.prior == "grid" and self.oracle and not enumerable:
            raise UsageError("the oracle needs grid circuits with one number of points, one level of modulus noise, no "
                             "rs and no blanks; give evaluation.oracle=false for others.")  # fmt: skip

    def __call__(self, run: Run) -> dict[str, float]:
        """The scores of `run`'s model; rows without a spectrum are left out."""
        rng = np.random.default_rng([self.seed, 1])
        batch = draw_rows(run.pipeline, self.count, rng)
        batch = {name: value[batch["x"][..., 3].any(axis=1)] for name, value in batch.items()}
        if broken := nonfinite(run.model, batch):
            return {counted("nonfinite_spectra", self.count): broken}
        source, masks = run.pipeline.sources["eval"], three_known(len(batch["x"]), rng)
        level = source.loudest if source.quietest == source.loudest else 0.0
        observed = Observed(batch["x"], batch["target"], masks, source.topology, level, source.rs)
        found = self.on_grid(run.model, observed) if observed.on_grid else self.off_grid(run.model, observed)
        found["residual_spearman"] = residual_correlation(run.model, batch)
        return {counted(name, self.count): value for name, value in found.items()}

    def on_grid(self, model, observed: Observed) -> dict[str, float]:
        """The scores of grid circuits."""
        nothing = np.zeros_like(observed.mask)
        rankings = (predicted(model, observed.x, observed.cells, mask) for mask in (nothing, observed.mask))
        found = ranked(observed, *rankings)
        if not self.oracle:
            return found
        return beside(found, oracle_scores(observed))

    def off_grid(self, model, observed: Observed) -> dict[str, float]:
        """The scores of circuits anywhere."""
        places, _ = drawn(model, observed, self.samples, self.seed)
        found = densities(model, observed) | posterior_scores(observed, places)
        best = invariants(fitted(observed, observed.parameters), observed.topology)
        fit = invariant_errors(best, observed.parameters, observed.topology)
        return found | {f"{name}_of_fit": found[name] / max(value, 1e-12) for name, value in fit.items()}


def nonfinite(model, batch: NumpyBatch) -> float:
    """The share of the first 64 spectra for which a network is no distribution, as after a training that diverged."""
    (_, context), *_ = contexts(model, batch["x"][:64], 64)
    chosen, _ = model.log_density(context, mx.array(batch["target"][:64], mx.float32), within=False)
    return float(np.isnan(np.array(chosen)).any(axis=-1).mean())


def oracle_scores(observed: Observed) -> dict[str, float]:
    """The exact posterior's scores, kept on disk by what the spectra hold (evaluation.statistics)."""

    def make() -> Statistics:
        oracle = GridOracle(observed.frequencies, observed.topology, observed.level)
        return np.empty(0), ranked(observed, *exact(oracle, observed.z, observed.cells, observed.mask))

    contents = (np.ascontiguousarray(part).tobytes() for part in (observed.x, observed.places, observed.mask))
    key = {"oracle": sha256(b"".join(contents)).hexdigest(), "topology": observed.topology, "level": observed.level}
    return kept(key, make)[1]


def beside(found: dict[str, float], best: dict[str, float]) -> dict[str, float]:
    """Scores with the oracle's: these as "..._oracle", accuracies as parts of them and the gaps of nll in nats."""
    shares = {f"{name}_of_oracle": found[name] / best[name] for name in ACCURACIES if name in found and best[name]}
    gaps = {f"{name}_gap": found[name] - best[name] for name in LIKELIHOODS if {name} <= found.keys() & best.keys()}
    return found | {f"{name}_oracle": value for name, value in best.items()} | shares | gaps


def residual_correlation(model, batch: NumpyBatch, size: int = 512) -> float:
    """Spearman's rank correlation of a predictor's log residual and the true one, of a batch's candidates.

    NaN for a predictor that says the same of all.
    """
    from scipy.stats import rankdata

    parts = []
    for rows, context in contexts(model, batch["x"], size):
        parts.append(np.array(model.log_residual(context, mx.array(batch["candidate"][rows]))))
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(rankdata(np.concatenate(parts)), rankdata(batch["residual"]))[0, 1])
