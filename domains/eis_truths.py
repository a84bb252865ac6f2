"""Ground truths: sets of circuit parameters to make spectra of, exact in number and repeatable by seed."""

import numpy as np

from domains.eis import HIGHEST, LOWEST
from runtime.errors import UsageError

SHARES = {"latin_hypercube": 0.40, "sobol": 0.30, "biological": 0.15, "corners": 0.15}
BIOLOGICAL = np.array([500.0, 3000.0, 2000.0, 3e-6, 3e-6])  # Rsh, Ra, Rb (ohm), Ca, Cb (F): an epithelium's
SPREAD = 0.5  # standard deviation of ln p around BIOLOGICAL
CORNER = 0.1  # of the logarithmic range that a corner reaches inwards


def ground_truths(count: int, seed: int = 0) -> np.ndarray:
    """`count` sets of parameters (count, 5), shuffled; the kinds have the parts of SHARES, the last one what is left.

    latin_hypercube and sobol fill the logarithmic range, biological is lognormal around BIOLOGICAL (clipped to the
    range), corners have every parameter within a tenth of one of its ends. Raises UsageError for count < 1.
    """
    if count < 1:
        raise UsageError(f"ground truths: count must be at least 1, got {count}.")
    from scipy.stats import qmc

    rng = np.random.default_rng(seed)
    sizes = dict(zip(SHARES, parts(count), strict=True))
    unit = [
        qmc.LatinHypercube(5, rng=rng).random(sizes["latin_hypercube"]),
        sobol(sizes["sobol"], rng),
        to_unit(BIOLOGICAL * np.exp(SPREAD * rng.standard_normal((sizes["biological"], 5)))),
        corners(sizes["corners"], rng),
    ]
    return from_unit(rng.permutation(np.concatenate(unit)))


def parts(count: int) -> list[int]:
    """How many of each kind of SHARES make `count`: rounded ends of the running total."""
    ends = np.rint(np.cumsum(list(SHARES.values())) * count).astype(int)
    return np.diff(ends, prepend=0).tolist()


def sobol(count: int, rng: np.random.Generator) -> np.ndarray:
    """The first `count` points (count, 5) in [0, 1) of a scrambled Sobol sequence."""
    from scipy.stats import qmc

    if count == 0:
        return np.empty((0, 5))
    return qmc.Sobol(5, rng=rng).random_base2(int(np.ceil(np.log2(count))))[:count]


def corners(count: int, rng: np.random.Generator) -> np.ndarray:
    """Points (count, 5) of [0, 1] near its corners, all 32 in turn."""
    ends = np.arange(count)[:, None] >> np.arange(5) & 1
    inwards = CORNER * rng.random((count, 5))
    return np.where(ends, 1 - inwards, inwards)


def to_unit(parameters: np.ndarray) -> np.ndarray:
    """Where parameters (..., 5) lie in the logarithmic range, 0 at its lowest, clipped to [0, 1]."""
    return np.clip(np.log(parameters / LOWEST) / np.log(HIGHEST / LOWEST), 0, 1)


def from_unit(unit: np.ndarray) -> np.ndarray:
    """The parameters (..., 5) at places (..., 5) of the logarithmic range."""
    return LOWEST * (HIGHEST / LOWEST) ** np.asarray(unit)
