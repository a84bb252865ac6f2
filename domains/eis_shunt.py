"""All parallel circuits of one spectrum: the four numbers that it determines, and the fifth, Rsh, that it leaves free.

Z = Rsh (Za + Zb) / (Rsh + Za + Zb) = (A0 + A1 s) / (1 + B1 s + B2 s^2), s = j w, is also that of two membranes with
no shunt at all. Their Ra', Rb', Ca', Cb' stand for the four coefficients here: every Rsh above A0 = Ra' + Rb' (TER)
gives one circuit with the same Z.
"""

import numpy as np

from domains.eis import canonical


def open_shunt(parameters: np.ndarray) -> np.ndarray:
    """Ra', Rb', Ca', Cb' (..., 4) of the same Z without shunt, Ra' Ca' <= Rb' Cb', of circuits (..., 5)."""
    parameters = canonical(parameters)
    return _membranes(*_coefficients(parameters[..., 1:], -1 / parameters[..., 0]))


def with_shunt(membranes: np.ndarray, rsh: np.ndarray) -> np.ndarray:
    """The circuits (..., 5) of the same Z with shunts rsh (...) in ohm, canonical; NaN where rsh <= Ra' + Rb'."""
    rsh = np.asarray(rsh, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = _membranes(*_coefficients(membranes, 1 / rsh))
    rsh = np.broadcast_to(rsh, found.shape[:-1])
    possible = rsh > np.asarray(membranes)[..., :2].sum(axis=-1)
    return np.where(possible[..., None], np.concatenate([rsh[..., None], found], axis=-1), np.nan)


def log_volume(membranes: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """ln |d ln(Ra, Rb, Ca, Cb) / d ln(Ra', Rb', Ca', Cb')| (...) at fixed Rsh, parameters being `with_shunt`.

    The coefficients of two membranes have the determinant Ra Rb ta tb (ta - tb)^2 to ln of the parameters, and
    1 / (1 - A0 / Rsh)^5 to those of the open shunt.
    """
    stretch = -5 * np.log1p(-np.asarray(membranes)[..., :2].sum(axis=-1) / parameters[..., 0])
    return stretch + _log_determinant(membranes) - _log_determinant(parameters[..., 1:])


def _coefficients(membranes: np.ndarray, less: np.ndarray) -> tuple[np.ndarray, ...]:
    """a0, a1, b1, b2 of 1 / (1 / (Za + Zb) - less), each (...)."""
    ra, rb, ca, cb = np.moveaxis(np.asarray(membranes, float), -1, 0)
    first, second = ra * ca, rb * cb
    a0, a1 = ra + rb, ra * second + rb * first
    k = 1 / (1 - a0 * less)
    return k * a0, k * a1, k * (first + second - a1 * less), k * first * second


def _membranes(a0: np.ndarray, a1: np.ndarray, b1: np.ndarray, b2: np.ndarray) -> np.ndarray:
    """Ra, Rb, Ca, Cb (..., 4) of the coefficients, the quicker one first."""
    large = (b1 + np.sqrt(np.maximum(b1**2 - 4 * b2, 0))) / 2
    small = b2 / large
    ra, rb = (a1 - a0 * small) / (large - small), (a0 * large - a1) / (large - small)
    return np.stack([ra, rb, small / ra, large / rb], axis=-1)


def _log_determinant(membranes: np.ndarray) -> np.ndarray:
    ra, rb, ca, cb = np.moveaxis(np.asarray(membranes, float), -1, 0)
    first, second = ra * ca, rb * cb
    return np.log(ra * rb * first * second) + 2 * np.log(np.abs(first - second))
