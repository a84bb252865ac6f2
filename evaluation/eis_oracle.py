"""The exact posterior over the grid of circuits: the ceiling of every predictor, by enumeration."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from domains.eis import GRID, POINTS, Impedance, canonical_indices, impedance
from runtime.errors import UsageError

COUNT = POINTS**5


class GridOracle:
    """All 248,832 grid circuits with equal prior, observed at `frequencies` (F,) Hz with modulus noise of `level`.

    The likelihood is domains.eis_noise.log_likelihood, written as three matrix products; float64 throughout, since the
    squares that cancel are 1 / level^2 times as large as what is left.
    """

    def __init__(self, frequencies: np.ndarray, topology: str, level: float):
        if level <= 0:
            raise UsageError(f"the oracle needs a noise level above 0, got {level}.")
        self.frequencies, self.topology, self.level = np.asarray(frequencies, float), topology, level
        self.indices = np.stack(np.unravel_index(np.arange(COUNT), (POINTS,) * 5), axis=-1)
        z = impedance(GRID[np.arange(5), self.indices], self.frequencies, topology)
        weight = 1 / (2 * level**2 * np.abs(z) ** 2)
        # sum_f w |Z_o - Z|^2 = w |Z_o|^2 - 2 w Re Z Re Z_o - 2 w Im Z Im Z_o + F / (2 level^2)
        self._factors = np.concatenate([weight, -2 * weight * z.real, -2 * weight * z.imag], axis=1).T.copy()
        self._constant = -len(self.frequencies) * (np.log(2 * np.pi * level**2) + 1 / (2 * level**2))
        self._constant = self._constant - 2 * np.log(np.abs(z)).sum(axis=1)

    def log_likelihood(self, spectra: Impedance) -> np.ndarray:
        """ln p(spectrum | circuit) in nats, (N, 248832), of complex spectra (N, F)."""
        columns = np.concatenate([np.abs(spectra) ** 2, spectra.real, spectra.imag], axis=1)
        return self._constant - columns @ self._factors

    def log_posterior(self, spectra: Impedance, known: dict[int, np.ndarray] | None = None) -> np.ndarray:
        """ln p(circuit | spectrum, known parameters), (N, 248832); known: {parameter: grid indices (N,)}."""
        found = self.log_likelihood(spectra)
        for parameter, indices in (known or {}).items():
            found[self.indices[None, :, parameter] != np.asarray(indices)[:, None]] = -np.inf
        found -= found.max(axis=1, keepdims=True)
        return found - np.log(np.exp(found).sum(axis=1, keepdims=True))

    def batches(self, spectra: Impedance, size: int = 64) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of the spectra and their log posteriors, so that memory stays at size x 248832 numbers."""
        for start in range(0, len(spectra), size):
            rows = slice(start, min(start + size, len(spectra)))
            yield rows, self.log_posterior(spectra[rows])

    @cached_property
    def merged(self) -> np.ndarray:
        """For each circuit the number of the one it is with its membranes in canonical order, (248832,)."""
        return flat(canonical_indices(self.indices))


def flat(indices: np.ndarray) -> np.ndarray:
    """The circuits' numbers (...) from grid indices (..., 5)."""
    return np.asarray(np.ravel_multi_index(tuple(np.moveaxis(indices, -1, 0)), (POINTS,) * 5))


def swap_merged(posterior: np.ndarray, oracle: GridOracle) -> np.ndarray:
    """Probabilities (N, 248832) with each circuit's swapped twin added to the canonical one; 0 at the twin's place."""
    found = np.zeros_like(posterior)
    for row, own in zip(found, posterior, strict=True):
        row += np.bincount(oracle.merged, own, minlength=COUNT)
    return found


def ceilings(oracle: GridOracle, spectra: Impedance, truths: np.ndarray, size: int = 64) -> dict[str, float]:
    """What the posterior's best guesses reach on spectra (N, F) of grid truths (N, 5) indices.

    top1, top5, top10: truth among the so many likeliest circuits; merged_top1: a swapped twin counts as the circuit,
    their probabilities added; nll: mean of -ln p(truth) in nats.
    """
    numbers, own = flat(truths), oracle.merged[flat(truths)]
    hits = {"top1": 0, "top5": 0, "top10": 0, "merged_top1": 0}
    nll = 0.0
    for rows, log_posterior in oracle.batches(spectra, size):
        at = np.arange(rows.stop - rows.start)
        nll -= log_posterior[at, numbers[rows]].sum()
        best = np.argpartition(-log_posterior, 10, axis=1)[:, :10]
        order = np.take_along_axis(best, np.argsort(-np.take_along_axis(log_posterior, best, 1), axis=1), 1)
        found = order == numbers[rows][:, None]
        for name, k in (("top1", 1), ("top5", 5), ("top10", 10)):
            hits[name] += int(found[:, :k].sum())
        merged = swap_merged(np.exp(log_posterior), oracle).argmax(axis=1)
        hits["merged_top1"] += int((merged == own[rows]).sum())
    return {name: count / len(spectra) for name, count in hits.items()} | {"nll": nll / len(spectra)}
