"""Proposals around circuits that fit: each is moved onto the spectrum and has the width that this leaves there."""

from dataclasses import dataclass
from math import lgamma

import numpy as np

from domains.eis import CELL, LOWEST
from domains.eis_fit import Residuals, Search
from evaluation.eis_likelihood import Problem

FREEDOM = 5.0  # degrees of freedom of the proposals' tails
LONGEST = 1.0  # cells of a step
SETTLED = 0.1  # twice the nats that a circuit's last step gains
DAMPING = (1e-3, 0.1, 10.0)  # at first, and its factors after a good and a bad step
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


def around(problem: Problem, places: np.ndarray, reach: float, steps: int, bounds: tuple[float, float]) -> Mixture:
    """The mixture around circuits at places (M, 5), each moved onto the spectrum by at most `steps` steps (0: not).

    Gauss-Newton steps with Levenberg's damping, for the noise level that the fit so far has; Rs, where it is free, goes
    along. A normal prior of `reach` cells about the start keeps what the spectrum leaves open where it was, and is the
    component's width in that direction. bounds: of the centres, in places. Components without hope of a share in the
    posterior are left out.
    """
    count, free = len(places), problem.free
    points = 2 * len(problem.spectrum.z)
    q = np.concatenate([np.log(LOWEST) + places * CELL, np.full((count, 1), problem.rs[0])], axis=1)
    moving = free + [5] if problem.rs_free else free
    z, w = (np.broadcast_to(row, (count, points // 2)) for row in (problem.spectrum.z, _angular(problem)))
    residuals = Residuals(z, w, problem.topology, moving, problem.kind)
    stay = np.array([(reach * CELL[i]) ** -2 for i in free] + [0.0] * problem.rs_free)
    low, high = (np.append(np.log(LOWEST) + bound * CELL, rs)[moving] for bound, rs in
                 zip(bounds, problem.rs, strict=True))  # fmt: skip
    if problem.rs_free:  # the best one for each start: it is linear
        _, _, normal, gradient = residuals.linearised(q, slice(None))
        q[:, 5] = np.clip(q[:, 5] - gradient[:, -1] / normal[:, -1, -1], *problem.rs)
    longest = np.append(LONGEST * CELL, np.inf)[moving]
    search = Search(low, high, longest, *DAMPING, settled=SETTLED, small=1.0, levels=problem.levels, stay=stay)
    q, _, _, normal, squares = residuals.fit(q, steps if moving else 0, search)
    scale, diagonal = search.level(squares, points), np.arange(len(moving))
    precision = normal / scale[:, None, None] ** 2
    precision[:, diagonal, diagonal] += stay + 1e-12
    if problem.rs_free:  # at an end of its range it does not make up for the others
        stuck = (q[:, 5] <= problem.rs[0]) | (q[:, 5] >= problem.rs[1])
        precision[stuck, -1, -1] = 1e18
    covariance = np.linalg.inv(precision)[:, : len(free), : len(free)] / CELL[free] / CELL[free, None]
    factors = np.linalg.cholesky(covariance)
    mass = -points * np.log(scale) - squares / (2 * scale**2)
    mass = mass + np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    kept = mass > mass.max() - HOPELESS
    return Mixture(((q[:, free] - np.log(LOWEST[free])) / CELL[free])[kept], factors[kept])


def _angular(problem: Problem) -> np.ndarray:
    return 2 * np.pi * problem.spectrum.frequencies
