"""The evaluator: the oracle as a predictor reaches all of itself; data without an oracle; runs that end with scores."""

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from scipy import stats

import launcher
from dataloaders.eis import Spectra
from evaluation import eis
from evaluation.eis_oracle import GridOracle
from runtime.errors import UsageError
from runtime.run import Run
from scripts.compose import compose

OPTIONS = {"size": 100, "points": 12, "noise": 0.02}


class Exact:
    """A predictor whose distribution is the exact posterior's, factor by factor."""

    def __init__(self, source: Spectra):
        self.oracle: GridOracle | None = None
        self.source = source

    def encode(self, x, known, known_mask):
        """The rows' posteriors as a table of 12^5, kept aside; the context is their number."""
        x, known, known_mask = (np.array(part, np.float64) for part in (x, known, known_mask))
        self.oracle = self.oracle or GridOracle(10.0 ** x[0, :, 0], self.source.topology, self.source.loudest)
        table = np.exp(self.oracle.log_posterior(x[..., 1] + 1j * x[..., 2]))
        for row in range(len(x)):
            for i in np.flatnonzero(known_mask[row]):
                table[row, self.oracle.indices[:, i] != known[row, i]] = 0
        self.table = table.reshape(-1, 12, 12, 12, 12, 12) / table.sum(axis=1)[:, None, None, None, None, None]
        return mx.arange(len(x))[:, None]

    def cells(self, context, places, parameter):
        """ln of the conditional distribution of a parameter's cell."""
        own = self.table.sum(axis=tuple(range(parameter + 2, 6)))
        rows = np.broadcast_to(np.array(context)[..., 0], places.shape[:-1])
        before = np.array(places).astype(int)
        found = own[(rows, *(before[..., i] for i in range(parameter)))]
        with np.errstate(divide="ignore"):
            return mx.array(np.maximum(np.log(found), -1e4)), None

    def log_density(self, context, places, within=True):
        """ln of the conditionals at places."""
        logits = [self.cells(context, places, i)[0] for i in range(5)]
        cells = mx.round(places).astype(mx.int32)
        found = [mx.take_along_axis(part - mx.logsumexp(part, axis=-1, keepdims=True), cells[:, i : i + 1], axis=-1)
                 for i, part in enumerate(logits)]  # fmt: skip
        return mx.concatenate(found, axis=-1), mx.zeros(places.shape)

    def log_residual(self, context, places):
        """Something that falls where the truth rises, for some rows."""
        return -places[:, 0]


def run_of(source, model) -> Run:
    pipeline = SimpleNamespace(
        sources={"eval": source}, draw=lambda mode, count, rng: source.take(np.arange(count), rng)
    )
    return Run({}, model, SimpleNamespace(), pipeline)  # type: ignore[arg-type]


def test_the_oracle_is_all_of_itself():
    source = Spectra(prior="grid", **OPTIONS)
    run = run_of(source, Exact(source))
    evaluator = eis.CircuitRecovery(count=30)
    evaluator.check(run.pipeline)
    found = evaluator(run)
    assert all(name.endswith("_30") for name in found)
    shares = {name: value for name, value in found.items() if "_of_oracle" in name}
    assert len(shares) >= 5
    for name, value in shares.items():  # between twins, alike but for the last digits, a first place is tossed for
        assert value == pytest.approx(1, abs=0.1 if name == "completion_top1_of_oracle_30" else 1e-9), name
    gaps = {name: value for name, value in found.items() if "_gap" in name}
    assert len(gaps) == 3
    for name, value in gaps.items():
        assert value == pytest.approx(0, abs=2e-3), name
    assert found["nll_oracle_30"] > 0.5 and found["residual_30"] == pytest.approx(found["residual_oracle_30"], rel=1e-3)
    batch = source.take(np.arange(30), np.random.default_rng([0, 1]))
    want = stats.spearmanr(-batch["candidate"][:, 0], batch["residual"])[0]
    assert found["residual_spearman_30"] == pytest.approx(want)


def test_scores_beside_the_oracles():
    best = {"top5": 0.4, "nll": 1.5, "ece": 0.01, "merged_nll": 1.0}
    found = eis.beside({"top5": 0.3, "nll": 2.0, "ece": 0.1}, best)
    assert found["top5_of_oracle"] == pytest.approx(0.75) and found["nll_gap"] == 0.5
    assert (found["top5"], found["top5_oracle"], found["ece_oracle"]) == (0.3, 0.4, 0.01)
    assert "merged_nll_gap" not in found


@pytest.mark.parametrize("changes", [{"noise": (0.01, 0.02)}, {"points": (5, 12)}, {"rs": 10.0}, {"kinds": ["phase"]}])
def test_grids_without_an_oracle_are_refused(changes):
    pipeline = run_of(Spectra(prior="grid", **OPTIONS | changes), None).pipeline
    with pytest.raises(UsageError, match="evaluation.oracle=false"):
        eis.CircuitRecovery().check(pipeline)
    eis.CircuitRecovery(oracle=False).check(pipeline)
    eis.CircuitRecovery().check(run_of(Spectra(**OPTIONS | changes), None).pipeline)


def test_mistakes():
    with pytest.raises(UsageError, match="at least 20, got 3"):
        eis.CircuitRecovery(count=3)
    with pytest.raises(UsageError, match="got Spectra"):
        eis.CircuitRecovery().check(run_of(Spectra(blank=1.0, **OPTIONS), None).pipeline)
    with pytest.raises(UsageError, match="got range"):
        eis.CircuitRecovery().check(SimpleNamespace(sources={"eval": range(3)}))


SMALL = ["run_name=t", "max_steps=2", "epochs=null", "eval_every=null", "trackio.enabled=false", "device=cpu",
         "traces.progress.quiet=true", "compile=false", "batch_size=8", "evaluation=eis", "evaluation.count=20",
         "evaluation.samples=20", "dataloaders.shape=[12,4]", "dataloaders.train_data.points=12", "model.width=8",
         "model.depth=1", "model.slots=4", "model.hidden=16"]  # fmt: skip


@pytest.mark.parametrize("prior", ["grid", "continuous", "varied"])
def test_a_run_ends_with_its_scores(prior, tmp_path):
    """varied: lengths, noise, a series resistance and rows without a spectrum."""
    told = [*SMALL, "experiment=eis_parallel_grid", f"dataloaders.train_data.prior={prior}"]
    if prior == "varied":
        told = [*SMALL, "experiment=eis_parallel", "dataloaders.train_data.points=[5,12]",
                "dataloaders.train_data.blank=0.3", "dataloaders.workers=1"]  # fmt: skip
    summary = launcher.train(compose(told), tmp_path / "t", told)
    values = {name: value for name, value in summary.latest.items() if name.startswith("eval/")}
    wanted = {"grid": ["merged_top1_of_oracle", "completion_top5_of_oracle", "nll_gap", "residual_best10"],
              }.get(prior, ["merged_nll", "error_TER_of_fit", "coverage90_tau_2", "sbc_TEC"])  # fmt: skip
    for name in (*wanted, "merged_top1", "merged_ece_floor", "residual_spearman"):
        assert np.isfinite(values[f"eval/{name}_20"]), name


def test_a_network_without_a_spectrum_is_scored_too(tmp_path):
    told = [*[text for text in SMALL if not text.startswith("model.")], "model.hidden=16", "experiment=eis_no_spectrum"]
    summary = launcher.train(compose(told), tmp_path / "t", told)
    assert summary.latest["eval/completion_nll_20"] == pytest.approx(2 * np.log(12), rel=0.05)
    assert np.isnan(summary.latest["eval/residual_spearman_20"])


def test_a_network_of_nan_is_told_and_no_crash():
    source = Spectra(**OPTIONS)
    model = Exact(Spectra(**OPTIONS, prior="grid"))
    model.log_density = lambda context, places, within=True: (mx.full(places.shape, mx.nan), places)
    run = run_of(source, model)
    assert eis.CircuitRecovery(count=20)(run) == {"nonfinite_spectra_20": 1.0}
