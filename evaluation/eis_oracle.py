"""The exact posterior over the grid of circuits: the ceiling of every predictor, by enumeration."""

from collections.abc import Iterator

import numpy as np

from domains.eis import GRID, POINTS, Impedance, impedance
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


def flat(indices: np.ndarray) -> np.ndarray:
    """The circuits' numbers (...) from grid indices (..., 5)."""
    return np.asarray(np.ravel_multi_index(tuple(np.moveaxis(indices, -1, 0)), (POINTS,) * 5))
