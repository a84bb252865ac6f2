"""Spectra with the circuits behind them, and what each method says of them: the rows of a table of methods."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from domains import eis_start
from domains.eis import (
    NAMES,
    POINTS,
    Impedance,
    canonical_indices,
    cells_of,
    from_places,
    impedance,
    invariants,
    nearest_indices,
)
from domains.eis_fit import Fit, fit_from_middle, levenberg_marquardt, middle
from evaluation.eis_oracle import COUNT
from evaluation.eis_ranking import TOP, Ranking, scores

BEST = 10  # circuits of which the best reconstruction counts


@dataclass(frozen=True)
class Observed:
    """N spectra: x (N, P, 4) as a predictor takes it, places (N, 5) of the truths, mask (N, 5) of what may be told.

    rs: the largest series resistance in ohm (log-uniform from a thousandth of it; 0: none), which predictors are not
    told. level: relative size of the modulus noise, where it is the same for all; what compares with the exact
    posterior needs it and needs the same frequencies in all.
    """

    x: np.ndarray
    places: np.ndarray
    mask: np.ndarray
    topology: str
    level: float = 0.0
    rs: float = 0.0

    @property
    def present(self) -> np.ndarray:
        """(N, P) bool: where there is a point."""
        return self.x[..., 3] > 0

    @property
    def sweeps(self) -> np.ndarray:
        """(N, P) in Hz."""
        return 10.0 ** self.x[..., 0].astype(np.float64)

    @property
    def alike(self) -> bool:
        """Whether all have the same points."""
        return bool((self.x[..., [0, 3]] == self.x[:1, :, [0, 3]]).all())

    @property
    def frequencies(self) -> np.ndarray:
        """(P,) in Hz, of all where they are alike."""
        return self.sweeps[0]

    @property
    def z(self) -> Impedance:
        """(N, P) in ohm."""
        return self.x[..., 1].astype(np.float64) + 1j * self.x[..., 2]

    @property
    def parameters(self) -> np.ndarray:
        """The true circuits (N, 5)."""
        return from_places(self.places)

    @property
    def cells(self) -> np.ndarray:
        """The grid points (N, 5) int that the truths are, or lie nearest to."""
        return cells_of(self.places)

    @property
    def on_grid(self) -> bool:
        """Whether every truth is a grid point."""
        return bool((self.places == np.rint(self.places)).all())


def three_known(count: int, rng: np.random.Generator) -> np.ndarray:
    """Masks (count, 5) float with three ones each, all ten alike likely."""
    return (np.argsort(rng.random((count, 5)), axis=1) < 3).astype(np.float32)


def reconstruction(observed: Observed, parameters: np.ndarray) -> np.ndarray:
    """Mean over frequencies of |dZ| / |Z| between the spectra and circuits (N, K, 5), (N, K).

    A series resistance is chosen for each circuit, by least squares.
    """
    z = np.where(observed.present, observed.z, 1)[:, None]
    off = z - impedance(parameters, observed.sweeps[:, None], observed.topology)
    weight = observed.present[:, None] / np.abs(z)
    rs = (off.real * weight**2).sum(axis=-1, keepdims=True) / (weight**2).sum(axis=-1, keepdims=True)
    return (np.abs(off - np.clip(rs, 0, observed.rs)) * weight).sum(axis=-1) / (weight > 0).sum(axis=-1)


def reconstructed(observed: Observed, parameters: np.ndarray) -> dict[str, float]:
    """Medians over spectra of the first of circuits (N, K, 5) and of the best of the first ten."""
    found = reconstruction(observed, parameters[:, :BEST])
    return {"residual": float(np.median(found[:, 0])), "residual_best10": float(np.median(found.min(axis=1)))}


def invariant_errors(found: dict[str, np.ndarray], truths: np.ndarray, topology: str) -> dict[str, float]:
    """Medians of |log10(found / true)| of each invariant, found (N,) each, truths (N, 5), as "error_<invariant>"."""
    true = invariants(truths, topology)
    return {f"error_{name}": float(np.median(np.abs(np.log10(value / true[name])))) for name, value in found.items()}


def ranked(observed: Observed, joint: Ranking | None, completion: Ranking) -> dict[str, float]:
    """The scores of a method that ranks grid circuits, those with three known parameters as "completion_"."""
    found = {}
    if joint is not None:
        found |= scores(joint, observed.cells) | reconstructed(observed, from_places(joint.cells))
    given = scores(completion, observed.cells)
    return found | {f"completion_{name}": value for name, value in given.items() if not name.startswith("merged")}


def uniform() -> dict[str, float]:
    """What the prior scores on grid circuits, whatever it lists first: chance."""
    found = {f"{name}top{k}": times * k / COUNT for k in TOP for name, times in (("", 1), ("merged_", 2))}
    twins = (1 - 1 / POINTS**2) * np.log(2)  # all but the circuits whose membranes are alike have one
    found |= {"nll": 5 * np.log(POINTS), "merged_nll": 5 * np.log(POINTS) - twins, "ece": 0.0, "merged_ece": 0.0}
    return found | {f"completion_top{k}": k / POINTS**2 for k in TOP} | {"completion_nll": 2 * np.log(POINTS)}


def fitted(observed: Observed, start: np.ndarray | None = None) -> np.ndarray:
    """Circuits (N, 5) by Levenberg-Marquardt from `start` (N, 5), or from the middle of the grid."""
    start, rs = middle(len(observed.x)) if start is None else start, None if observed.rs else 0.0
    return _each(observed, lambda f, z, rows: levenberg_marquardt(f, z, start[rows], observed.topology, rs=rs))


def projected(observed: Observed) -> np.ndarray:
    """Circuits (N, 5) by the search over time constants alone, which no start is needed for."""
    rs = None if observed.rs else 0.0
    return _each(observed, lambda f, z, _: eis_start.fit(f, z, observed.topology, rs))


def _each(observed: Observed, fit: Callable[[np.ndarray, Impedance, slice], Fit]) -> np.ndarray:
    """Circuits (N, 5) of fit(frequencies, z, rows): of all rows at once where they are alike, else of one by one."""
    if observed.alike:
        return fit(observed.frequencies, observed.z, slice(None)).parameters
    points = enumerate(zip(observed.sweeps, observed.z, observed.present, strict=True))
    return np.concatenate([fit(f[own], z[None, own], slice(i, i + 1)).parameters for i, (f, z, own) in points])


def completed(observed: Observed) -> np.ndarray:
    """Circuits (N, 5) by Levenberg-Marquardt from the middle of the grid, what the mask tells held at its value."""
    found, truths = np.empty(observed.places.shape), observed.parameters
    for mask in np.unique(observed.mask, axis=0):
        rows = np.flatnonzero((observed.mask == mask).all(axis=1))
        known = {name: truths[rows, i] for i, name in enumerate(NAMES) if mask[i]}
        found[rows] = fit_from_middle(observed.frequencies, observed.z[rows], observed.topology, known).parameters
    return found


def least_squares(observed: Observed) -> dict[str, float]:
    """The fit from mid-grid as a method on grid circuits, with what is known and without."""
    completion = nearest_indices(completed(observed))
    found = guessed(observed, fitted(observed))
    return found | {"completion_top1": float((completion == observed.cells).all(axis=1).mean())}


def guessed(observed: Observed, parameters: np.ndarray) -> dict[str, float]:
    """A method with one circuit (N, 5) for each spectrum: its guess is the grid point nearest to it."""
    cells, truths = nearest_indices(parameters), observed.cells
    same = canonical_indices(cells) == canonical_indices(truths)
    return {
        "top1": float((cells == truths).all(axis=1).mean()),
        "merged_top1": float(same.all(axis=1).mean()),
        "residual": float(np.median(reconstruction(observed, parameters[:, None]))),
    }
