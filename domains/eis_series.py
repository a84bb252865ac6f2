"""One membrane a and one b through a series of spectra, although no single spectrum says which is which."""

import numpy as np

from domains.eis import SWAP, canonical

WHOLE = 0.1  # weight of a change beside that of a change of pace: what drifts may go on drifting, and cross


def stable_labels(parameters: np.ndarray, deviations: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A series of circuits (T, 5) with membranes named alike throughout, and which of them were swapped, (T,) bool.

    Of the 2^T ways to name them the one with the smallest sum of squared second differences of ln p, plus WHOLE times
    that of the first ones, each over what the deviations (T, 5) of ln p let expect; found by dynamic programming over
    pairs of neighbours. So branches go through each other where time constants, or even both R and C, cross. Rows that
    are not finite (no result) are passed over. The first row is in canonical order, Ra Ca <= Rb Cb.
    """
    parameters = np.asarray(parameters, float)
    rows = np.nonzero(np.isfinite(parameters).all(axis=1))[0]
    swapped = np.zeros(len(parameters), bool)
    if not len(rows):
        return parameters.copy(), swapped
    q = np.log(parameters[rows])
    variance = np.ones_like(q) if deviations is None else np.asarray(deviations, float)[rows] ** 2
    choice = _best(np.stack([q, q[:, SWAP]]), np.stack([variance, variance[:, SWAP]]))
    first = parameters[rows[0]]
    if choice[0] != (canonical(first) != first).any():
        choice = 1 - choice
    swapped[rows] = choice == 1
    return np.where(swapped[:, None], parameters[:, SWAP], parameters), swapped


def _best(q: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """The states (T,) of 0 and 1 with the least cost; q, variance (2, T, 5): ln p as it is and swapped."""
    count = q.shape[1]
    if count == 1:
        return np.zeros(1, int)
    # step[t][i, j]: from state i at t to j at t + 1; turn[t][h, i, j]: h at t - 1, i at t, j at t + 1
    step = ((q[:, None, :-1] - q[None, :, 1:]) ** 2 / (variance[:, None, :-1] + variance[None, :, 1:])).sum(axis=-1)
    step = WHOLE * np.moveaxis(step, -1, 0)
    bend = q[:, None, None, :-2] - 2 * q[None, :, None, 1:-1] + q[None, None, :, 2:]
    spread = variance[:, None, None, :-2] + 4 * variance[None, :, None, 1:-1] + variance[None, None, :, 2:]
    turn = np.moveaxis((bend**2 / spread).sum(axis=-1), -1, 0)
    cost, came = step[0], []
    for t in range(1, count - 1):
        total = cost[:, :, None] + turn[t - 1] + step[t][None]
        came.append(total.argmin(axis=0))
        cost = total.min(axis=0)
    before, last = np.unravel_index(cost.argmin(), cost.shape)
    states = [int(last), int(before)]
    for back in reversed(came):
        states.append(int(back[states[-1], states[-2]]))
    return np.array(states[::-1])
