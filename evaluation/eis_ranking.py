"""The likeliest circuits of the grid, however they were found, and how often and how surely they are the truth."""

from dataclasses import dataclass, fields
from typing import Any

import mlx.core as mx
import numpy as np

from domains.eis import SWAP, Impedance, canonical_indices, impedance, on_grid
from domains.eis_noise import log_likelihood
from evaluation.eis_calibration import calibration_error, calibration_floor
from evaluation.eis_oracle import GridOracle, flat
from evaluation.eis_proposals import beam

TOP = (1, 5, 10)
WIDTH = 64  # circuits that a ranking keeps


@dataclass(frozen=True)
class Ranking:
    """Circuits of N spectra by probability: cells (N, K, 5) int, likeliest first, and ln p (N, K) in nats.

    truth, twin: ln p of the truth's cell and of its swapped twin's, (N,), also where the list lacks them.
    """

    cells: np.ndarray
    log_p: np.ndarray
    truth: np.ndarray
    twin: np.ndarray

    def merged(self, truths: np.ndarray) -> "Ranking":
        """The same with twins added up under the canonical circuit; cells that became one leave ln p = -inf behind."""
        cells = canonical_indices(self.cells)
        numbers = flat(cells)
        same = numbers[:, :, None] == numbers[:, None, :]
        first = same.argmax(axis=2) == np.arange(numbers.shape[1])
        with np.errstate(divide="ignore"):
            log_p = np.log(np.einsum("nij,nj->ni", same, np.exp(self.log_p)) * first)
        own = (truths == truths[:, SWAP]).all(axis=1)  # its own twin
        total = np.where(own, self.truth, np.logaddexp(self.truth, self.twin))
        return Ranking(*likeliest(cells, log_p, cells.shape[1]), total, total)


def likeliest(cells: np.ndarray, log_p: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` likeliest of cells (N, K, 5) and their ln p (N, K), in order."""
    order = np.argsort(-log_p, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(cells, order[..., None], axis=1), np.take_along_axis(log_p, order, axis=1)


def hits(cells: np.ndarray, truths: np.ndarray, k: int) -> np.ndarray:
    """Whether truths (N, 5) are among the first k of cells (N, K, 5), (N,) bool."""
    return (cells[:, :k] == truths[:, None]).all(axis=-1).any(axis=1)


def scores(ranking: Ranking, truths: np.ndarray) -> dict[str, float]:
    """top1, top5, top10, nll (nats) and ece of circuits (N, 5) int as they are, and "merged_" with swapped twins added.

    ece: of the first one's probability; ece_floor: what chance alone gives a perfectly calibrated one.
    """
    found = {}
    for name, own, wanted in (("", ranking, truths), ("merged_", ranking.merged(truths), canonical_indices(truths))):
        found |= {f"{name}top{k}": float(hits(own.cells, wanted, k).mean()) for k in TOP}
        found[f"{name}nll"] = float(-own.truth.mean())
        stated = np.exp(own.log_p[:, 0])
        found[f"{name}ece"] = calibration_error(stated, hits(own.cells, wanted, 1))
        found[f"{name}ece_floor"] = calibration_floor(stated, np.random.default_rng(0))
    return found


def exact(
    oracle: GridOracle, spectra: Impedance, truths: np.ndarray, mask: np.ndarray, size: int = 32
) -> tuple[Ranking, Ranking]:
    """The exact posterior's ranking of spectra (N, F), without known parameters and with those of mask (N, 5) known.

    One enumeration serves both: what is known only leaves circuits out.
    """
    parts: tuple[list[Ranking], list[Ranking]] = ([], [])
    for rows, log_p in oracle.batches(spectra, size):
        truth = truths[rows]
        parts[0].append(_ranked(oracle, log_p, truth))
        fits = ((oracle.indices == truth[:, None]) | (mask[rows, None] == 0)).all(axis=-1)
        given = np.where(fits, log_p, -np.inf)
        given -= given.max(axis=1, keepdims=True)
        given -= np.log(np.exp(given).sum(axis=1, keepdims=True))
        parts[1].append(_ranked(oracle, given, truth))
    return joined(parts[0]), joined(parts[1])


def _ranked(oracle: GridOracle, log_p: np.ndarray, truths: np.ndarray) -> Ranking:
    """The ranking of log posteriors (N, 248832)."""
    at = np.arange(len(truths))
    best = np.argpartition(-log_p, WIDTH, axis=1)[:, :WIDTH]
    first = likeliest(oracle.indices[best], log_p[at[:, None], best], WIDTH)
    return Ranking(*first, log_p[at, flat(truths)], log_p[at, flat(truths[:, SWAP])])


def joined(parts: list[Ranking]) -> Ranking:
    """One ranking of the spectra of several."""
    return Ranking(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Ranking)))


def predicted(
    model: Any, x: np.ndarray, truths: np.ndarray, mask: np.ndarray, width: int = WIDTH, size: int = 256
) -> Ranking:
    """A predictor's ranking of spectra x (N, P, 4) of grid circuits (N, 5), those of mask (N, 5) known to it."""
    parts = []
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        given, known_mask = mx.array(truths[rows] * mask[rows], mx.float32), mx.array(mask[rows], mx.float32)
        context = model.encode(mx.array(x[rows]), given, known_mask)
        places, log_p = beam(model, context, given, known_mask, width, within=False)
        sides = []
        for own in (truths[rows], truths[rows][:, SWAP]):
            chosen, _ = model.log_density(context, mx.array(own, mx.float32), within=False)
            fits = ((own == truths[rows]) | (mask[rows] == 0)).all(axis=-1)
            sides.append(np.where(fits, np.array((chosen * (1 - known_mask)).sum(axis=-1), np.float64), -np.inf))
        parts.append(Ranking(np.rint(places).astype(np.int64), log_p, *sides))
    return joined(parts)


def reweighted(
    ranking: Ranking, truths: np.ndarray, frequencies: np.ndarray, spectra: Impedance, topology: str, level: float
) -> Ranking:
    """A predictor's ranking with its listed circuits weighed by the likelihood of spectra (N, F), the rest as it was.

    The list keeps the probability that it had in all; grid prior, so that the likelihood alone decides within it.
    """
    model = impedance(on_grid(ranking.cells), frequencies, topology)
    found = log_likelihood(spectra[:, None], model, level)
    found = np.where(np.isfinite(ranking.log_p), found, -np.inf)
    held = np.minimum(np.logaddexp.reduce(ranking.log_p, axis=1), 0)
    found += (held - np.logaddexp.reduce(found, axis=1))[:, None]
    sides = []
    for own, before in ((truths, ranking.truth), (truths[:, SWAP], ranking.twin)):
        listed = (ranking.cells == own[:, None]).all(axis=-1)
        now = np.where(listed, found, -np.inf).max(axis=1)
        sides.append(np.where(listed.any(axis=1), now, before))
    return Ranking(*likeliest(ranking.cells, found, found.shape[1]), *sides)
