"""Impedances of many circuits at the same frequencies, as ratios of polynomials: a third of the time of `impedance`.

With s = w^2, Z = (a0 + a1 s - j w (b0 + b1 s)) / (c0 + c1 s + c2 s^2), after Rsh in a series circuit. No coefficient is
negative, so no digits are lost, and values at all frequencies are products of matrices.
"""

import numpy as np

from domains.eis import check_topology


class Ratios:
    """The impedances without Rs of circuits (N, 5) at frequencies (F,) in Hz; `parts` gives the values."""

    def __init__(self, parameters: np.ndarray, frequencies: np.ndarray, topology: str):
        check_topology(topology)
        w = 2 * np.pi * np.asarray(frequencies, float)
        self.even, self.odd = np.stack([np.ones_like(w), w**2, w**4]), np.stack([-w, -(w**3)])
        rsh, ra, rb, ca, cb = np.asarray(parameters, float).T
        ta, tb = ra * ca, rb * cb
        rest, cross, steep = ra + rb, ra * tb + rb * ta, ra * tb * tb + rb * ta * ta
        c = [np.ones_like(ta), ta * ta + tb * tb, (ta * tb) ** 2]  # of |1 + j w ta|^2 |1 + j w tb|^2
        self.before = rsh[:, None] if topology == "series" else None
        if topology == "parallel":  # (m + |m|^2 / Rsh) / |1 + m / Rsh|^2, m = Za + Zb, |m|^2 c = rest^2 + s cross^2
            shared, more = 1 + rest / rsh, cross / rsh
            c = [shared * shared, c[1] + 2 * steep / rsh + more * more, c[2]]
            rest, steep = rest * shared, steep + cross * more
        self.a, self.c = np.stack([rest, steep], axis=1), np.stack(c, axis=1)
        self.b = np.stack([ra * ta + rb * tb, ta * tb * cross], axis=1)

    def parts(self, rows: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Re Z and Im Z of some of the circuits, (n, F) each, new arrays."""
        below = self.c[rows] @ self.even
        real, imaginary = self.a[rows] @ self.even[:2], self.b[rows] @ self.odd
        real /= below
        imaginary /= below
        if self.before is not None:
            real += self.before[rows]
        return real, imaginary
