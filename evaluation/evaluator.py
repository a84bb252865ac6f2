"""Evaluators: what turns a run in hand into named numbers."""

from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Any

import numpy as np

from evaluation.statistics import Statistics, kept
from runtime.errors import UsageError, closest
from runtime.op import NumpyBatch
from runtime.run import Run


class Evaluator:
    """Judges a run; every metric name says its method, so that two kinds of number never share one.

    needs_samples: whether it judges samples, which not every objective has.
    """

    needs_samples = False

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


def counted(metric: str, count: int) -> str:
    """A metric's name with the rows a side it was measured with: fd_EffLite0_5k, emd_2500."""
    return f"{metric}_{count // 1000}k" if count % 1000 == 0 else f"{metric}_{count}"


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
    steps: the run's own fixed-step solver with so many steps each, reported as "<metric>_<n>step". solvers: by name,
    each reported as "<metric>/<name>". Neither: the run's own as it is, as "<metric>". batch: rows sampled at once.
    Data and floor depend on the data alone and are kept between calls.
    """

    needs_samples = True

    def __init__(
        self, count: int, floor_pairs: int, seed: int, solvers: dict | None, batch: int, steps: list | tuple = ()
    ):
        if count < 2:
            raise UsageError(f"{type(self).__name__}: count must be at least 2, got {count}.")
        for number in steps:
            if not isinstance(number, int) or number < 1:
                raise UsageError(f"{type(self).__name__}: steps must be whole numbers from 1 on, got {number!r}.")
        self.count, self.floor_pairs, self.seed, self.batch = count, floor_pairs, seed, batch
        self.solvers, self.steps = solvers or {}, tuple(steps)
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
        for end, solver in self.samplers(run):
            samples = run.samples(self.count, seed=self.seed, batch=self.batch, solver=solver, **conditions)
            scores |= {f"{metric}{end}": value for metric, value in self._judge(samples, data).items()}
        return {**scores, **floor}

    def samplers(self, run: Run) -> list[tuple[str, Any]]:
        """What follows a metric's name, and the solver that it is measured with (None: the run's own)."""
        own = [(f"_{number}step", copy(run.solver)) for number in self.steps]
        for number, (_, solver) in zip(self.steps, own, strict=True):
            solver.steps = number
        return [*own, *((f"/{name}", solver) for name, solver in self.solvers.items())] or [("", None)]

    def _judge(self, samples: np.ndarray, data: np.ndarray) -> dict[str, float]:
        broken = ~np.isfinite(samples).reshape(len(samples), -1).all(axis=1)
        if broken.any():
            return {**dict.fromkeys(self.names(), float("nan")), "nonfinite_samples": float(broken.mean())}
        return self.measure(self.features(samples), data)

    def method(self) -> dict[str, Any] | None:
        """What the data's features and floor depend on beside the data, to keep them on disk; None: they are not."""
        return None

    def _data(self, pipeline) -> Statistics:
        """Features of the data (count, d) and the floor of every metric."""
        fingerprint, method = pipeline.fingerprint(), self.method()
        if self._kept is None or self._kept[0] != fingerprint:
            key = {"data": fingerprint, "count": self.count, "floor_pairs": self.floor_pairs, "seed": self.seed}
            make = partial(self.measure_data, pipeline)
            made = make() if method is None else kept(key | method, make)
            self._kept = (fingerprint, *made)
        return self._kept[1:]

    def measure_data(self, pipeline) -> Statistics:
        """Features of `count` rows of the data, and the floors."""
        if not self.floor_pairs:
            return self.features(draw_rows(pipeline, self.count, np.random.default_rng([self.seed, 2]))["x"]), {}
        measured: dict[str, list[float]] = {}
        first: list[np.ndarray] = []
        for pair in range(self.floor_pairs):
            rows, others = draw_pair(pipeline, self.count, np.random.default_rng([self.seed, 2, pair]))
            features = self.features(rows)
            first = first or [features]
            for metric, value in self.measure(features, self.features(others)).items():
                measured.setdefault(f"{metric}_floor", []).append(value)
        return first[0], {metric: float(np.mean(values)) for metric, values in measured.items()}
