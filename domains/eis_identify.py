"""What one spectrum determines: which parameters and invariants, how well, and which other circuits fit as well.

Around a circuit the posterior is taken as normal in ln p: likelihood of modulus noise, prior of the standard deviation
that the continuous prior has. In the parallel circuit without known parameters one direction shows nothing at all and
bends; there the normal posteriors across `domains.eis_family.ridge` are added up along it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from domains.eis import HIGHEST, LOWEST, NAMES, POINTS, derivatives, impedance, invariants
from domains.eis_family import profile, ridge, thinned, within_prior
from domains.eis_units import UNIT_OF, si
from runtime.errors import UsageError

WIDTH = np.log(HIGHEST / LOWEST) * POINTS / (POINTS - 1) / np.sqrt(12)  # standard deviation of the prior's ln p
RIDGE = 60  # circuits along the direction that nothing shows
RS_WIDTH = 100.0  # ohm, of the series resistance
SHARE = 0.15  # of the prior's standard deviation: below it something is determined (to about half a grid step)
WIDER = 10.0  # times wider a prior that must not make the difference


@dataclass(frozen=True)
class Quantity:
    """A parameter or invariant: its value (ohm, farad or s) and the posterior's standard deviation of its ln (Rs: ohm).

    determined: by the spectrum, not by the prior: the deviation would be below 0.15 of the prior's (0.33 for ln R,
    0.29 for ln C, 15 ohm for Rs) under a prior ten times wider, too.
    """

    value: float
    deviation: float
    determined: bool


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a spectrum says of a circuit.

    quantities: by name, the parameters that were free ("Rs" last) and the invariants. singular (k,): of the whitened
    Jacobian by the free parameters in standard deviations of the prior, descending; of a direction with less than 1
    the prior says more than the spectrum. swap: whether the circuit with its membranes changed over fits as well.
    ridge: circuits (M, 5) of the prior with exactly the same spectrum, where that is all that is open, else None.
    """

    quantities: dict[str, Quantity]
    singular: np.ndarray
    swap: bool
    ridge: np.ndarray | None
    _profile: Callable[[str], np.ndarray]

    @cached_property
    def families(self) -> dict[str, np.ndarray]:
        """For each parameter that is not determined, circuits (M, 5) ascending in it that fit within the noise."""
        found = {}
        for name in (name for name in NAMES if name in self.quantities and not self.quantities[name].determined):
            if self.ridge is None:
                found[name] = self._profile(name)
            else:
                found[name] = self.ridge[np.argsort(self.ridge[:, NAMES.index(name)])]
        return found

    @cached_property
    def sentence(self) -> str:
        """All of it in plain words."""
        return _sentence(self)


def verdict(
    parameters: np.ndarray, frequencies: np.ndarray, topology: str, level: float, known: tuple[str, ...] = (),
    rs: float = 0.0, rs_free: bool = False,
) -> Verdict:  # fmt: skip
    """What a spectrum at `frequencies` (F,) Hz with modulus noise of `level` determines about `parameters` (5,).

    known: names of parameters that are given. rs: series resistance in ohm, known unless rs_free. Raises UsageError
    for a level that is not above 0 and for unknown names.
    """
    parameters = np.asarray(parameters, float)
    if not level > 0:
        raise UsageError(f"the verdict needs a noise level above 0, got {level}.")
    if not set(known) <= set(NAMES):
        raise UsageError(f"known parameters are among {', '.join(NAMES)}, got {', '.join(known)}.")
    free = [i for i, name in enumerate(NAMES) if name not in known] + [5] * rs_free
    width = np.append(WIDTH, RS_WIDTH)[free]
    rows = whitened(parameters, frequencies, topology, level, rs)[:, free] * width
    covariance, wide = (np.linalg.inv(rows.T @ rows + np.eye(len(free)) / w**2) for w in (1, WIDER))
    summary = {}
    slopes = _slopes(parameters, topology)
    for name, value in invariants(parameters, topology).items():
        if name not in NAMES:
            slope = np.append(slopes[name], 0)[free] * width
            deviation, loose = (float(np.sqrt(slope @ matrix @ slope)) for matrix in (covariance, wide))
            summary[name] = Quantity(float(value), deviation, loose < SHARE * float(WIDTH[0]))
    variance, determined = np.diag(covariance), np.diag(wide) < SHARE**2
    whole = circuits = None
    if topology == "parallel" and not known:
        whole = ridge(parameters)
        across = _across(wide[None], np.linalg.svd(rows)[2][-1:])[0]
        determined = across + _extent(whole)[free] ** 2 < SHARE**2
        inside = np.nonzero(within_prior(whole) | (np.arange(len(whole)) == len(whole) // 2))[0]
        if len(inside) > 2:
            circuits = whole[inside[np.unique(np.linspace(0, len(inside) - 1, RIDGE).astype(int))]]
            along = _along(circuits, frequencies, level, rs, width)
            if all(quantity.determined for quantity in summary.values()):
                variance = along
            else:  # the noise opens further directions, and circuits that fit may lie far from the exact ridge
                variance, circuits = np.maximum(variance, along), None
        determined = determined & (variance < SHARE**2)
    values = (*parameters, rs)
    quantities = {(*NAMES, "Rs")[i]: Quantity(float(values[i]), float(w * np.sqrt(v)), bool(sure))
                  for i, w, v, sure in zip(free, width, variance, determined, strict=True)}  # fmt: skip

    def fitted(name: str) -> np.ndarray:
        k = free.index(NAMES.index(name))
        if whole is not None:
            path = whole[within_prior(whole, 10.0)]
        else:  # the straight line that the normal posterior gives
            slope = np.zeros(6)
            slope[free] = covariance[:, k] * width / (covariance[k, k] * width[k])
            path = parameters * np.exp(np.linspace(-8, 8, 65)[:, None] * slope[:5])
        return profile(parameters, name, frequencies, topology, level, known, rs, rs_free, path)

    singular = np.linalg.svd(rows, compute_uv=False)
    return Verdict(quantities | summary, singular, not set(known) & set(NAMES[1:]), circuits, fitted)


def whitened(parameters: np.ndarray, frequencies: np.ndarray, topology: str, level: float, rs: float = 0.0):
    """The Jacobian (..., 2 F, 6) of Z's parts over their noise, by ln p of (..., 5) and by Rs in ohm."""
    z = impedance(parameters, frequencies, topology, rs)
    slopes = np.concatenate([derivatives(parameters, frequencies, topology), np.ones((*z.shape, 1))], axis=-1)
    slopes = slopes / (level * np.abs(z))[..., None]
    return np.concatenate([slopes.real, slopes.imag], axis=-2)


def _along(circuits: np.ndarray, frequencies: np.ndarray, level: float, rs: float, width: np.ndarray) -> np.ndarray:
    """Variances (k,) in prior's widths of the posterior around a ridge of circuits (M, 5) with one impedance.

    At each circuit counts the volume of the normal posterior across the ridge; its variances are added to those of the
    ridge's points.
    """
    k = len(width)
    few, level = thinned(frequencies, level)
    rows = whitened(circuits, few, "parallel", level, rs)[..., :k] * width
    inverse = np.linalg.inv(np.swapaxes(rows, 1, 2) @ rows + np.eye(k))
    q = np.concatenate([np.log(circuits), np.zeros((len(circuits), k - 5))], axis=1) / width
    tangent = np.gradient(q, axis=0)
    length = np.linalg.norm(tangent, axis=1)
    v = tangent / length[:, None]
    volume = 0.5 * (np.linalg.slogdet(inverse)[1] - np.log(np.einsum("mi,mij,mj->m", v, inverse, v)))
    weight = length * np.exp(volume - volume.max())
    weight /= weight.sum()
    return weight @ ((q - weight @ q) ** 2 + _across(inverse, v))


def _across(covariance: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Variances (M, k) of normal distributions with covariances (M, k, k), cut to what is across directions (M, k).

    S - S v v S / v S v; its determinant there is |S| / v S v.
    """
    turned = np.einsum("mij,mj->mi", covariance, v)
    return np.diagonal(covariance, axis1=1, axis2=2) - turned**2 / np.einsum("mi,mi->m", turned, v)[:, None]


def _extent(circuits: np.ndarray) -> np.ndarray:
    """How far a ridge reaches, prior or not, as a standard deviation in the prior's, (6,) with 0 for Rs."""
    with np.errstate(all="ignore"):  # equal time constants: a membrane of 0 ohm
        return np.append(np.ptp(np.log(circuits), axis=0) / np.sqrt(12) / WIDTH, 0)


def _slopes(parameters: np.ndarray, topology: str) -> dict[str, np.ndarray]:
    """d ln(invariant) / d ln p, (5,) each, by central differences."""
    h = 1e-6
    steps = np.exp(h * np.eye(5))
    up, down = invariants(parameters * steps, topology), invariants(parameters / steps, topology)
    return {name: np.log(up[name] / down[name]) / (2 * h) for name in up}


def _sentence(found: Verdict) -> str:
    """The verdict in plain words."""
    quantities, families = found.quantities, found.families
    if not set(quantities) & {*NAMES, "Rs"}:
        return "All parameters are given, so that the spectrum has nothing to determine."
    sure = [f"{name} = {si(q.value, UNIT_OF[name])} ± "
            + (si(q.deviation, "Ω") if name == "Rs" else f"{100 * q.deviation:.2g}%")
            for name, q in quantities.items() if q.determined and q.deviation > 0]  # fmt: skip
    said = [f"This spectrum determines {', '.join(sure)}." if sure else "This spectrum determines nothing by itself."]
    ranges = {}
    for name, circuits in families.items():
        values = circuits[:, NAMES.index(name)]
        ranges[name] = f"from {si(values.min(), UNIT_OF[name])} to {si(values.max(), UNIT_OF[name])}"
    if found.ridge is not None:
        first, *others = ranges
        beside = " and ".join(f"{name} {ranges[name]}" for name in others)
        said.append(f"{first} is not determined: among the prior's circuits every value {ranges[first]} fits alike, "
                    f"each with its own {', '.join(others)} ({beside}).")  # fmt: skip
    else:
        said += [f"{name} is not determined: every value {ends} fits within the noise." for name, ends in
                 ranges.items()]  # fmt: skip
    loose = [name for name, q in quantities.items() if not q.determined and name not in families]
    if loose:
        said.append(f"Not determined either: {', '.join(loose)}.")
    if found.swap:
        said.append("Which membrane is a and which is b does not show.")
    return " ".join(said)
