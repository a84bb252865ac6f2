"""Proposals around circuits that fit: each is moved onto the spectrum and has the width that this leaves there."""

from dataclasses import dataclass
from math import lgamma

import numpy as np

from domains.eis import derivatives
from evaluation.eis_likelihood import Problem
from evaluation.eis_proposals import CELL, from_places

FREEDOM = 5.0  # degrees of freedom of the proposals' tails
LONGEST = 1.0  # cells of a step
HOPELESS = 12.0  # nats of a component's mass below the largest


@dataclass(frozen=True)
class Mixture:
    """Multivariate t densities of equal shares: centres (M, d), Cholesky factors of their covariances (M, d, d)."""

    centres: np.ndarray
    factors: np.ndarray

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Points (count, d), as nearly the same number from every component as can be."""
        which = rng.permutation(np.arange(count) % len(self.centres))
        normal = rng.standard_normal((count, self.centres.shape[1], 1))
        scale = np.sqrt(FREEDOM / rng.chisquare(FREEDOM, (count, 1)))
        return self.centres[which] + scale * (self.factors[which] @ normal)[..., 0]

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """ln of the density at points (N, d), (N,)."""
        size = points.shape[1]
        inverse = np.linalg.inv(self.factors)
        white = inverse @ points.T - inverse @ self.centres[..., None]  # (M, d, N)
        constant = lgamma((FREEDOM + size) / 2) - lgamma(FREEDOM / 2) - size / 2 * np.log(FREEDOM * np.pi)
        volume = np.log(np.abs(np.diagonal(inverse, axis1=1, axis2=2))).sum(axis=1)
        square = np.einsum("mdn,mdn->mn", white, white)
        each = volume[:, None] - (FREEDOM + size) / 2 * np.log1p(square / FREEDOM)
        most = each.max(axis=0)
        return constant + most + np.log(np.exp(each - most).mean(axis=0))


def linearised(problem: Problem, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Residuals (M, 2F) over |Z observed| at places (M, 5), and minus their derivatives (M, 2F, d) by free places.

    Rs is the best one for each; where it is free and inside its range, its direction is taken out of the derivatives.
    """
    observed, free = problem.spectrum.z, problem.free
    scale = 1 / np.abs(observed)
    left = (observed - problem.impedance(places)) * scale
    slope = derivatives(from_places(places), problem.spectrum.frequencies, problem.topology)[..., free]
    slope = slope * CELL[free] * scale[:, None]
    best = left.real @ scale / (scale @ scale)
    rs = np.clip(best, *problem.rs)
    left = left - rs[:, None] * scale
    slope = np.concatenate([slope.real, slope.imag], axis=-2)
    if problem.rs_free:
        direction = np.concatenate([scale, 0 * scale]) / np.sqrt(scale @ scale)
        along = (rs == best)[:, None, None] * (direction @ slope)[:, None]
        slope = slope - direction[:, None] * along
    return np.concatenate([left.real, left.imag], axis=-1), slope


def around(problem: Problem, places: np.ndarray, reach: float, steps: int, bounds: tuple[float, float]) -> Mixture:
    """The mixture around circuits at places (M, 5), each moved onto the spectrum by `steps` steps (0: not at all).

    Gauss-Newton steps with Levenberg's damping, for the noise level that the fit so far has. A normal prior of `reach`
    cells about the start keeps what the spectrum leaves open where it was, and is the component's width in that
    direction. bounds: of the centres, in places. Components without hope of a share in the posterior are left out.
    """
    free = problem.free
    start, full = places[:, free], places.copy()
    ridge = np.eye(len(free)) / reach**2
    damping = np.full(len(start), 1e-3)
    left, slope = linearised(problem, full)
    for _ in range(steps):
        weight = fitted_level(problem, left)[:, None] ** -2
        at = full[:, free]
        normal = slope.swapaxes(1, 2) @ slope * weight[..., None] + ridge
        pull = (left[:, None] @ slope)[:, 0] * weight - (at - start) / reach**2
        damped = normal + damping[:, None, None] * normal * np.eye(len(free))
        step = np.linalg.solve(damped, pull[..., None])[..., 0]
        step /= np.maximum(np.abs(step).max(axis=1, keepdims=True) / LONGEST, 1)
        trial = full.copy()
        trial[:, free] = np.clip(at + step, *bounds)
        new_left, new_slope = linearised(problem, trial)
        far = ((trial[:, free] - start) ** 2 - (at - start) ** 2).sum(axis=1) / reach**2
        better = ((new_left**2 - left**2) * weight).sum(axis=1) + far <= 0
        full[better], left[better], slope[better] = trial[better], new_left[better], new_slope[better]
        damping = np.where(better, damping / 10, damping * 10)
    level = fitted_level(problem, left)
    precision = slope.swapaxes(1, 2) @ slope / level[:, None, None] ** 2 + ridge
    factors = np.linalg.cholesky(np.linalg.inv(precision))
    points = left.shape[1]
    mass = -points * np.log(level) - (left**2).sum(axis=1) / (2 * level**2)
    mass = mass + np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    kept = mass > mass.max() - HOPELESS
    return Mixture(full[kept][:, free], factors[kept])


def fitted_level(problem: Problem, left: np.ndarray) -> np.ndarray:
    """The noise level (M,) that residuals (M, 2F) speak of, within the problem's range."""
    return np.clip(np.sqrt((left**2).mean(axis=1)), *problem.levels)
