"""Two terms R / (1 + jw tau) fitted to spectra by variable projection: only their time constants are searched.

Z = R0 + R1 / (1 + jw tau1) + R2 / (1 + jw tau2) is linear in its resistances, which are therefore functions of the time
constants: least squares (Golub and Pereyra 1973, SIAM J. Numer. Anal. 10, 413; with the Jacobian of Kaufman 1975, BIT
15, 49). Against a step in all parameters one in two unknowns takes half the time, and resistances can't be wrong.

With x = w tau, f = 1 / (1 + x^2) and t = x f a term's 1 / (1 + jx) is f - jt and its derivative by ln tau -2t^2 +
j(t - 2ft): linear in f, t, t^2 and ft, so that all products of columns come from those of these four.
"""

from itertools import combinations

import numpy as np

from domains.eis import HIGHEST, LOWEST, Impedance

FIRST, EASIER, HARDER = 1e-2, 0.1, 5.0  # damping, and its factors after a good and a bad step
LONGEST = 1.0  # step of ln tau
SMALL = 1e-2  # share of the sum of squares that a step must gain for another
REACH = 4.0  # ln of how far time constants may go beyond the inverse angular frequencies
NEAR = 2.0  # ln of how far beyond those of the grid's circuits
TWICE = 2  # entries of a spectrum at most
FLAT = 1e-13  # of a column's square, beside the others: what is less is rounding
RIDGE = 1e-12  # share of columns' squares that keeps few frequencies from making them one
LOGS, SQUARES, OHMS, DOWN, CURVE, DAMPING = slice(2), 2, slice(3, 6), slice(6, 8), slice(8, 11), 11  # of an entry
WIDTH = 12
# of f, t, t^2 and ft: real and imaginary parts of a term and its slope, and what their products are made of
PARTS = np.array([[[1.0, 0, 0, 0], [0, -1, 0, 0]], [[0, 0, -2, 0], [0, 1, 0, -2]]])
CROSS = np.einsum("apk,bpl->klab", PARTS, PARTS).reshape(16, 4)  # of two terms: from the products of the four
GOALS = np.einsum("apk->kpa", PARTS).reshape(8, 2)  # with the spectrum: from those with its two parts
ALONE = np.array([[1.0, 0, 0, 0], [0, 0, 0, 0], [0, -1, -1, 1], [0, 0, 0, 0]])  # of one term, f, -t^2 and t^2
STEADY = np.array([[1.0, 0], [0, 0], [0, -2], [0, 0]])  # with R0's column, f and -2t^2


class Projected:
    """Searches over the time constants of spectra z (N, F) at w (F,) = 2 pi f; constant: whether there is R0.

    size (N, F): of the errors, |Z| with whatever was taken off z before.
    Entries of a search are rows (n, WIDTH), each of one of the spectra: ln tau (LOGS, 2) and what follows from them,
    the sum of squares of (Z_model - Z) / size (SQUARES), R1, R2, R0 in ohm, none below 0 (OHMS), half of minus the
    gradient of squares by ln tau (DOWN) and of its second derivatives 11, 12, 22 (CURVE), and the next step's DAMPING.
    rows (n,) are the indices of their spectra.
    """

    def __init__(self, w: np.ndarray, z: Impedance, size: np.ndarray, constant: bool):
        self.w, self.z, self.k = w, z, 3 if constant else 2
        self.weight = 1 / size**2
        grid = np.log(LOWEST[1] * LOWEST[3]) - NEAR, np.log(HIGHEST[1] * HIGHEST[3]) + NEAR
        self.ends = max(-np.log(w.max()) - REACH, grid[0]), min(-np.log(w.min()) + REACH, grid[1])
        self.given = np.stack([self.weight, self.weight * z.real, self.weight * z.imag], axis=-1)  # (N, F, 3)
        self.sums = self.given.sum(axis=1)
        self.whole = (self.weight * (z.real**2 + z.imag**2)).sum(axis=1)
        self.both = np.empty((2, 4, TWICE * len(z), len(w)))  # of both terms what their columns are made of
        self.weighed = np.empty_like(self.both[0])

    def at(self, logs: np.ndarray, rows: np.ndarray | slice, damping: np.ndarray | float = FIRST) -> np.ndarray:
        """Entries at ln tau (n, 2)."""
        k, n = self.k, len(logs)
        found = np.empty((n, WIDTH))
        found[:, DAMPING] = damping
        logs = found[:, LOGS] = np.clip(logs, *self.ends)
        both = self.both[:, :, :n]
        four(self.w * np.exp(logs).T[..., None], both)
        weighed = np.multiply(both[0], self.weight[rows], out=self.weighed[:, :n])
        own = (both.reshape(8, n, len(self.w)).transpose(1, 0, 2) @ self.given[rows]).reshape(n, 2, 4, 3)
        cross = ((weighed.transpose(1, 0, 2) @ both[1].transpose(1, 2, 0)).reshape(n, 16) @ CROSS).reshape(n, 2, 2)
        gram = np.empty((n, k + 3, k + 3))
        columns = slice(0, k + 1, k), slice(1, k + 2, k)  # of either term: itself and its slope
        gram[:, columns[0], columns[1]], gram[:, columns[1], columns[0]] = cross, np.swapaxes(cross, 1, 2)
        alone, goal = own[..., 0] @ ALONE, own[..., 1:].reshape(n, 2, 8) @ GOALS
        for i, two in enumerate(columns):
            gram[:, two, two] = alone[:, i].reshape(n, 2, 2)
            gram[:, two, -1] = gram[:, -1, two] = goal[:, i]
            if k == 3:
                gram[:, two, 2] = gram[:, 2, two] = own[:, i, :, 0] @ STEADY
        if k == 3:
            gram[:, 2, 2], gram[:, 2, -1], gram[:, -1, 2] = self.sums[rows][:, [0, 1, 1]].T
        gram[:, -1, -1] = self.whole[rows]
        return self._projected(gram, found)

    def _projected(self, gram: np.ndarray, found: np.ndarray) -> np.ndarray:
        """`found` (n, WIDTH) with what follows from gram (n, k + 3, k + 3): of terms, R0, slopes and the spectrum."""
        k = self.k
        whole = gram.copy()
        for j in range(k):  # the linear columns are taken out of all the others
            row = gram[:, j] / np.maximum(gram[:, j, j], FLAT * whole[:, j, j])[:, None]
            column = gram[:, :, j].copy()
            column[:, j] = 0
            gram -= column[:, :, None] * row[:, None]
            gram[:, j] = row
        ohms, left = gram[:, :k, -1], gram[:, -1, -1]
        if len(bad := np.flatnonzero((ohms <= 0).any(axis=1))):
            ohms[bad], left[bad] = kept(whole[bad])
        found[:, SQUARES], found[:, 3 : 3 + k], found[:, 3 + k : 6] = left, ohms, 0
        r = ohms[:, :2]
        found[:, DOWN] = r * gram[:, k : k + 2, -1]
        found[:, 8] = r[:, 0] ** 2 * gram[:, k, k]
        found[:, 9] = r[:, 0] * r[:, 1] * gram[:, k, k + 1]
        found[:, 10] = r[:, 1] ** 2 * gram[:, k + 1, k + 1]
        return found

    def search(self, entries: np.ndarray, rows: np.ndarray, steps: int) -> np.ndarray:
        """Levenberg-Marquardt, in place; which of the entries another step might still better."""
        left = np.arange(len(rows))
        for _ in range(steps):
            if not len(left):
                break
            old = entries[left]
            found = self.at(old[:, LOGS] + damped(old), rows[left], old[:, DAMPING] * EASIER)
            gain = old[:, SQUARES] - found[:, SQUARES]
            better = gain > 0
            old[:, DAMPING] *= HARDER
            entries[left] = np.where(better[:, None], found, old)
            left = left[~better | (gain > SMALL * found[:, SQUARES])]
        return left

    def second(self, first: np.ndarray, tried: np.ndarray) -> np.ndarray:
        """ln tau (N,) among `tried` (K,) of the best term beside that of ln tau first (N,), which may move a little."""
        n, k = len(first), self.k
        basis = self.both[:1, :, :n]
        four(self.w * np.exp(first)[None, :, None], basis)
        f, t, square, product = basis[0]
        columns = np.empty((n, k, 2, len(self.w)))  # that term, its slope, R0's
        columns[:, 0, 0], columns[:, 0, 1], columns[:, 1, 0], columns[:, 1, 1] = f, -t, -2 * square, t - 2 * product
        columns[:, 2:, 0], columns[:, 2:, 1] = 1, 0
        weighed = (columns * self.weight[:, None, None]).reshape(n, k, -1)
        flat, goal = columns.reshape(n, k, -1), np.concatenate([self.z.real, self.z.imag], axis=1)
        gram = weighed @ np.swapaxes(flat, 1, 2)
        gram[:, range(k), range(k)] *= 1 + RIDGE
        inverse = np.linalg.inv(gram)
        own = inverse @ (weighed @ goal[..., None])  # the resistances without a second term
        left = (goal - (np.swapaxes(own, 1, 2) @ flat)[:, 0]) * np.tile(self.weight, 2)
        x = self.w[:, None] * np.exp(tried)
        real = 1 / (1 + x * x)
        # single precision: the list is coarser than that, and of the spectrum only what is left
        terms = np.concatenate([real, -x * real]).astype(np.float32)
        cross, rest = weighed.astype(np.float32) @ terms, left.astype(np.float32) @ terms
        shares, alone = inverse.astype(np.float32) @ cross, self.weight @ real
        ohms = rest / np.maximum(alone - (shares * cross).sum(axis=1), 1e-6 * alone)
        possible = (ohms > 0) & (own[:, 0] > shares[:, 0] * ohms)
        return tried[np.where(possible, rest * ohms, 0).argmax(axis=1)]


def four(x: np.ndarray, out: np.ndarray) -> None:
    """f, t, t^2 and ft of x (m, n, F) into out (m, 4, n, F)."""
    f, t, square, product = np.moveaxis(out, 1, 0)
    np.multiply(x, x, out=f)
    f += 1
    np.divide(1, f, out=f)
    np.multiply(x, f, out=t)
    np.multiply(t, t, out=square)
    np.multiply(f, t, out=product)


def damped(entries: np.ndarray) -> np.ndarray:
    """The step of ln tau (n, 2), damped by the diagonal (Marquardt 1963); 0 for a term that is none."""
    (a, c, b), (first, second) = entries[:, CURVE].T, entries[:, DOWN].T
    more = 1 + entries[:, DAMPING]
    a, b = a * more + 1e-300, b * more + 1e-300
    step = np.stack([b * first - c * second, a * second - c * first], axis=1)
    step /= np.maximum(a * b - c * c, FLAT * a * b + 1e-300)[:, None]
    return step / np.maximum(np.abs(step).max(axis=1, keepdims=True) / LONGEST, 1)


def kept(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best least squares (n, k) that leave one or more of k columns out, not below 0, and what they leave (n,).

    gram (n, k + 3, k + 3): products of columns, the k first and the goal last.
    """
    k, rows = gram.shape[1] - 3, np.arange(len(gram))
    i, j = np.array([*combinations(range(k), 2)][: 3 * (k - 2)], int).reshape(-1, 2).T
    size = np.sqrt(np.einsum("nii->ni", gram)[:, :k])
    goal, g = gram[:, :k, -1] / size, gram[:, i, j] / (size[:, i] * size[:, j])
    det = np.maximum(1 - g * g, FLAT)
    first, second = (goal[:, i] - g * goal[:, j]) / det, (goal[:, j] - g * goal[:, i]) / det
    two = np.where((first > 0) & (second > 0), first * goal[:, i] + second * goal[:, j], 0)
    gain = np.concatenate([np.maximum(goal, 0) ** 2, two], axis=1)  # of a column alone, of two
    best = gain.argmax(axis=1)
    found, pairs = np.zeros((len(gram), k)), np.flatnonzero(best >= k)
    found[rows, np.minimum(best, k - 1)] = np.maximum(goal[rows, np.minimum(best, k - 1)], 0)
    which = best[pairs] - k
    found[pairs] = 0
    found[pairs, i[which]], found[pairs, j[which]] = first[pairs, which], second[pairs, which]
    return found / size, gram[:, -1, -1] - gain[rows, best]
