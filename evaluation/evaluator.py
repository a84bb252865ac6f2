"""Evaluators: what turns a run in hand into named numbers."""

from collections.abc import Sequence

import numpy as np

from runtime.errors import UsageError, closest
from runtime.op import NumpyBatch
from runtime.run import Run


class Evaluator:
    """Judges a run; every metric name says its method, so that two kinds of number never share one."""

    def check(self, pipeline) -> None:
        """Raises UsageError where the data cannot serve this evaluator; called before training, not after it."""

    def __call__(self, run: Run) -> dict[str, float]:
        """The metrics of `run` by name."""
        raise NotImplementedError


def check_metrics(chosen: Sequence[str], known: Sequence[str]) -> None:
    """Raises UsageError unless at least one metric is chosen and all are known."""
    for metric in chosen:
        if metric not in known:
            raise UsageError(f"there is no metric {metric!r}; nearest: {closest(metric, list(known))}.")
    if not chosen:
        raise UsageError(f"metrics is empty; at least one of {', '.join(known)} is needed.")


def reference_mode(pipeline, count: int) -> str:
    """Which data to compare with: "eval" where it has `count` rows, else "train"."""
    return "eval" if len(pipeline.sources.get("eval", ())) >= count else "train"


def draw_rows(pipeline, count: int, rng: np.random.Generator) -> NumpyBatch:
    """`count` random rows of the held-out data, or of the training data where the held-out part is shorter."""
    return pipeline.draw(reference_mode(pipeline, count), count, rng)


def draw_pair(pipeline, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint sets of `count` rows: held-out and training data, or training data twice where the first is short.

    Two draws rather than the halves of one: a source that spreads every draw evenly (moons on a grid) would score
    its own halves ten times too far apart.
    """
    if reference_mode(pipeline, count) == "train":
        rows = pipeline.draw("train", 2 * count, rng)["x"]
        return rows[:count], rows[count:]
    return pipeline.draw("eval", count, rng)["x"], pipeline.draw("train", count, rng)["x"]


def sample_labels(run: Run, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The conditions to sample with: {"label": (count,)} in the data's own proportions, or nothing if unconditional."""
    if "label" not in run.objective.conditions:
        return {}
    return {"label": draw_rows(run.pipeline, count, rng)["label"]}


class TwoSample(Evaluator):
    """Compares a run's samples with data of equal size, beside the floor: what data scores against data.

    count: rows a side. floor_pairs: pairs of held-out and training draws that the floor is the mean of (0: no floor).
    solvers: by name; each is sampled with and reported as "<metric>/<name>". None takes the run's own, as "<metric>".
    batch: rows sampled at once. Data and floor depend on the data alone and are kept between calls.
    """

    def __init__(self, count: int, floor_pairs: int, seed: int, solvers: dict | None, batch: int):
        if count < 2:
            raise UsageError(f"{type(self).__name__}: count must be at least 2, got {count}.")
        self.count, self.floor_pairs, self.seed, self.batch = count, floor_pairs, seed, batch
        self.solvers = solvers
        self._kept: tuple[str, np.ndarray, dict[str, float]] | None = None

    def check(self, pipeline) -> None:
        """Raises UsageError where there are fewer rows than the comparison and its floor need."""
        held_out = reference_mode(pipeline, self.count) == "eval"
        for_floor = self.count if self.floor_pairs else 0
        needed = for_floor if held_out else self.count + for_floor
        available = len(pipeline.sources["train"])
        if needed > available:
            why = "for the floor" if held_out else f"(fewer than {self.count} rows are held out)"
            raise UsageError(
                f"evaluation.count={self.count} needs {needed} training rows {why}, but there are {available}; "
                "lower evaluation.count."
            )

    def features(self, rows: np.ndarray) -> np.ndarray:
        """What is compared: rows (n, ...) -> (n, d)."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """The metrics that `measure` gives."""
        raise NotImplementedError

    def measure(self, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Distances between two sets of features, x and y (n, d)."""
        raise NotImplementedError

    def __call__(self, run: Run) -> dict[str, float]:
        """Every metric of the samples, then every floor.

        Where samples are NaN or infinite (training diverged, say) their metrics are NaN and their share is given as
        "nonfinite_samples": a judgement never ends a run.
        """
        data, floor = self._data(run.pipeline)
        conditions = sample_labels(run, self.count, np.random.default_rng([self.seed, 1]))
        scores = {}
        for name, solver in (self.solvers or {"": None}).items():
            samples = run.samples(self.count, seed=self.seed, batch=self.batch, solver=solver, **conditions)
            end = f"/{name}" if name else ""
            scores |= {f"{metric}{end}": value for metric, value in self._judge(samples, data).items()}
        return {**scores, **floor}

    def _judge(self, samples: np.ndarray, data: np.ndarray) -> dict[str, float]:
        broken = ~np.isfinite(samples).reshape(len(samples), -1).all(axis=1)
        if broken.any():
            return {**dict.fromkeys(self.names(), float("nan")), "nonfinite_samples": float(broken.mean())}
        return self.measure(self.features(samples), data)

    def _data(self, pipeline) -> tuple[np.ndarray, dict[str, float]]:
        """Features of the data (count, d) and the floor of every metric."""
        fingerprint = pipeline.fingerprint()
        if self._kept is None or self._kept[0] != fingerprint:
            self._kept = (fingerprint, *self._measure_data(pipeline))
        return self._kept[1:]

    def _measure_data(self, pipeline) -> tuple[np.ndarray, dict[str, float]]:
        if not self.floor_pairs:
            return self.features(draw_rows(pipeline, self.count, np.random.default_rng([self.seed, 2]))["x"]), {}
        measured: dict[str, list[float]] = {}
        kept: list[np.ndarray] = []
        for pair in range(self.floor_pairs):
            rows, others = draw_pair(pipeline, self.count, np.random.default_rng([self.seed, 2, pair]))
            kept.append(self.features(rows))
            for metric, value in self.measure(kept[-1], self.features(others)).items():
                measured.setdefault(f"{metric}_floor", []).append(value)
        return kept[0], {metric: float(np.mean(values)) for metric, values in measured.items()}
