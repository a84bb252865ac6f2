"""Impedance spectra of circuits, made as they are asked for: any frequencies, any noise, some parameters known."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from dataloaders.source import Generated
from domains.eis import ENDS, POINTS, RS_SPAN, check_topology, default_frequencies, from_places, impedance
from domains.eis_noise import KINDS, noisy
from domains.eis_truths import ground_truths, to_unit
from runtime.errors import UsageError
from runtime.op import NumpyBatch

Prior = Literal["continuous", "grid", "truths"]
BLOCK = 256  # rows made at once: what they need stays in a core's cache
COLUMNS = 4  # of a point: log10 of the frequency, Re Z, Im Z, 1 (0 where a spectrum has no more points)


class Spectra(Generated):
    """Fresh spectra with the parameters behind them; one draw is repeatable by its generator.

    prior: "continuous" is uniform in the logarithm over all cells of the 12-point grid, half a cell beyond its ends;
    "grid" the grid's points; "truths" a fixed set of `truths` ground truths (domains.eis_truths, with `seed`), so that
    sets with another seed share no circuit. points: how many frequencies a spectrum has, one number for the 1 Hz to 1
    MHz grid of so many, or (least, most) for as many at random, from `low` to `high` Hz at widest. noise: relative
    size, one number or (least, most) uniform in the logarithm. rs: the largest series resistance in ohm (log-uniform
    from a thousandth of it; 0: none). known: chances of 0, 1, ... known parameters. blank: share of rows without any
    spectrum.

    A row: "x" (most points, 4) as COLUMNS says; "target" (5,), the logarithmic place on the grid, 0 to 11; "known" (5,)
    the same where "known_mask" (5,) is 1, else 0; "candidate" (5,), another circuit's place, near or anywhere, and
    "residual", log10 of the mean |dZ| between its impedance, after the same Rs, and the spectrum over the mean |Z|.
    """

    def __init__(
        self,
        size: int = 500_000,
        topology: str = "series",
        prior: Prior = "continuous",
        truths: int = 0,
        seed: int = 0,
        points: int | Sequence[int] = 50,
        low: float = 1e-2,
        high: float = 1e7,
        noise: float | Sequence[float] = 0.01,
        kinds: Sequence[str] = ("modulus",),
        rs: float = 0.0,
        known: Sequence[float] = (1.0,),
        blank: float = 0.0,
    ):
        super().__init__(size)
        check_topology(topology)
        self.topology, self.prior, self.low, self.high, self.rs, self.blank = topology, prior, low, high, rs, blank
        self.least, self.most = (points, points) if isinstance(points, int) else tuple(points)
        self.quietest, self.loudest = (noise, noise) if isinstance(noise, float | int) else tuple(noise)
        self.fixed, self.kinds, self.known = isinstance(points, int), tuple(kinds), np.cumsum(known)
        self.shape = (self.most, COLUMNS)
        if not 1 <= self.least <= self.most or not 0 < low < high:
            raise UsageError(f"Spectra needs 1 <= least <= most points and 0 < low < high, got points={points}, "
                             f"low={low:g}, high={high:g}.")  # fmt: skip
        silent = self.quietest == self.loudest == 0
        if not (silent or 0 < self.quietest <= self.loudest) or unknown_kind(self.kinds):
            raise UsageError(f"Spectra needs 0 < least <= most noise (or 0: none) and kinds among {', '.join(KINDS)}, "
                             f"got noise={noise}, kinds={list(kinds)}.")  # fmt: skip
        if not 1 <= len(known) <= 6 or not np.isclose(self.known[-1], 1) or min(known) < 0:
            raise UsageError(
                f"known needs the chances of 0, 1, ... up to 5 known parameters, sum 1; got {list(known)}."
            )
        if prior not in ("continuous", "grid", "truths") or (prior == "truths") != (truths > 0):
            raise UsageError(f"Spectra needs prior continuous, grid, or truths with truths > 0; got {prior}, {truths}.")
        self.places = to_unit(ground_truths(truths, seed)) * (POINTS - 1) if truths else None

    def draw(self, count: int, rng: np.random.Generator) -> NumpyBatch:
        """`count` rows."""
        parts = [self.block(min(BLOCK, count - start), rng) for start in range(0, count, BLOCK)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def block(self, count: int, rng: np.random.Generator) -> NumpyBatch:
        """`count` rows, made at once."""
        target = self.targets(count, rng)
        frequencies, present = self.frequencies(count, rng)
        parameters = from_places(target)
        rs = self.series(count, rng)
        z = impedance(parameters[:, None], frequencies[..., None], self.topology, rs)[..., 0]
        level = self.quietest * (self.loudest / max(self.quietest, 1e-12)) ** rng.random(count)
        kind = rng.integers(len(self.kinds), size=count)
        for number, name in enumerate(self.kinds):
            own = kind == number
            z[own] = noisy(z[own], level[own], rng, name)
        candidate = self.candidates(target, rng)
        other = impedance(from_places(candidate)[:, None], frequencies[..., None], self.topology, rs)[..., 0]
        weight = present / present.sum(axis=1, keepdims=True)
        residual = np.log10((np.abs(other - z) * weight).sum(axis=1) / (np.abs(z) * weight).sum(axis=1))
        present = present & (rng.random((count, 1)) >= self.blank)
        x = np.stack([np.log10(frequencies), z.real, z.imag, np.ones(z.shape)], axis=-1, dtype=np.float32)
        x *= present[..., None]
        order = np.argsort(rng.random((count, 5)), axis=1)
        mask = order < np.searchsorted(self.known, rng.random(count), side="right")[:, None]
        return {"x": x, "target": target, "known": target * mask, "known_mask": mask, "candidate": candidate,
                "residual": residual}  # fmt: skip

    def targets(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Places (count, 5) on the grid, 0 to 11."""
        if self.places is not None:
            return self.places[rng.integers(len(self.places), size=count)]
        if self.prior == "grid":
            return rng.integers(0, POINTS, (count, 5)).astype(float)
        return rng.uniform(*ENDS, (count, 5))

    def candidates(self, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Other places (count, 5) on the grid: half of them anywhere, half near, a cell or less from as good as right.

        For prior=grid the near ones are grid points up to three cells away in some parameters.
        """
        count = len(target)
        anywhere = rng.uniform(*ENDS, (count, 5))
        if self.prior == "grid":
            step = rng.integers(-3, 4, (count, 5)) * (rng.random((count, 5)) < 0.5)
            near = np.clip(target + step, 0, POINTS - 1)
        else:
            step = rng.standard_normal((count, 5)) * 10 ** rng.uniform(-2.5, 0.5, (count, 1))
            near = np.clip(target + step, *ENDS)
        return np.where(rng.random((count, 1)) < 0.5, near, anywhere)

    def frequencies(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Frequencies in Hz and which of them a spectrum has, (count, most) each."""
        if self.fixed:
            return np.tile(default_frequencies(self.most), (count, 1)), np.ones((count, self.most), bool)
        number = rng.integers(self.least, self.most + 1, (count, 1))
        width = np.log10(self.high / self.low)
        span = width * rng.uniform(0.4, 1.0, (count, 1))
        start = np.log10(self.low) + (width - span) * rng.random((count, 1))
        place = np.arange(self.most) / np.maximum(number - 1, 1)
        place = place + rng.uniform(0, 0.3, (count, 1)) / number * rng.standard_normal((count, self.most))
        return np.exp(np.log(10) * (start + span * np.clip(place, 0, 1))), np.arange(self.most) < number

    def series(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Series resistances in ohm, (count, 1)."""
        return self.rs * RS_SPAN ** -rng.random((count, 1)) if self.rs else np.zeros((count, 1))


def unknown_kind(kinds: Sequence[str]) -> bool:
    """Whether there is none, or one that is no kind of noise."""
    return not kinds or any(kind not in KINDS for kind in kinds)
