"""Series resistances drawn from about their posterior, given the rest of a circuit."""

import numpy as np

from evaluation.eis_likelihood import Problem, log_add


def against_rs(problem: Problem, real: np.ndarray, imaginary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How Rs changes the weighed sum of squares of Z_observed - Z - Rs: at Rs = 0, and half its fall per ohm.

    The problem's kind of noise weighs. real, imaginary: of Z (n, F) without Rs, in ohm; (n,) each.
    """
    observed, (xx, xy, yy) = problem.spectrum.z, problem.form
    own = (xx * observed.real + xy * observed.imag, xy * observed.real + yy * observed.imag)
    left = own[0] @ observed.real + own[1] @ observed.imag - 2 * (real @ own[0] + imaginary @ own[1])
    left = left + (real * real) @ xx + (imaginary * imaginary) @ yy
    slope = own[0].sum() - real @ xx
    if xy.any():
        left, slope = left + 2 * (real * imaginary) @ xy, slope - imaginary @ xy
    return np.maximum(left, 0), slope


def draw_rs(
    problem: Problem, left: np.ndarray, slope: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rs (N,) in ohm for what `against_rs` gives (N,), and ln of prior over density (N,); 0 where it is fixed.

    The proposal is log-uniform up to what the spectrum allows, mixed with a logistic density about the best value.
    """
    low, high = problem.rs
    count = len(left)
    if not problem.rs_free:
        return np.full(count, low), np.zeros(count)
    steep = problem.form[0].sum()
    best = slope / steep
    end = np.clip(best, low, high)
    rest = np.maximum(left - (2 * slope - end * steep) * end, 0)  # a parabola in Rs
    level = np.clip(np.sqrt(rest / (2 * len(problem.spectrum.z))), *problem.levels)
    width = level / np.sqrt(steep)
    bounds = [(end - best) / (0.6 * width) for end in (low, high)]
    top = np.clip(best + 5 * width, 2 * low, high)
    sharp = np.where(best > 4 * width, 0.95, 0.4)
    u = rng.random(count)
    # odds of (1 - u) F(low) + u F(high), with the digits of both tails
    odds = [log_add(np.log1p(-u) - soft(-sign * bounds[0]), np.log(u) - soft(-sign * bounds[1]))
            for sign in (1, -1)]  # fmt: skip
    peaked = np.clip(best + 0.6 * width * (odds[0] - odds[1]), low, high)
    spread = low * (top / low) ** rng.random(count)
    rs = np.where(rng.random(count) < sharp, peaked, spread)
    t = (rs - best) / (0.6 * width)
    inside = -soft(-bounds[1]) - soft(bounds[0]) + np.log(-np.expm1(bounds[0] - bounds[1]))
    log_peaked = -np.abs(t) - 2 * np.log1p(np.exp(-np.abs(t))) - np.log(0.6 * width) + np.log(rs) - inside
    log_spread = np.where(rs <= top, -np.log(np.log(top / low)), -np.inf)
    log_q = log_add(np.log(sharp) + log_peaked, np.log1p(-sharp) + log_spread)  # per ln Rs
    return rs, -np.log(np.log(high / low)) - log_q


def soft(x: np.ndarray) -> np.ndarray:
    """ln(1 + e^x)."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
