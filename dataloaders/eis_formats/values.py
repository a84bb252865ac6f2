"""Frequencies (F,) and impedances (F,) of a table: its columns in ohm and Hz, and what contradicts itself."""

import numpy as np

from dataloaders.eis_formats.layout import Layout
from dataloaders.eis_formats.names import KINDS, short
from dataloaders.eis_formats.tables import Table
from domains.eis import Impedance
from domains.eis_spectrum import FEWEST
from runtime.errors import UsageError

FREQUENCIES = (1e-9, 1e12)  # Hz, beyond which no instrument measures
IMPEDANCES = (1e-12, 1e18)  # ohm
DISAGREE = 0.01  # relative, of |Z| against Z' and Z''
DEGREES = 1.0  # of the phase against Z' and Z''
MOST = 0.9  # of the points must agree so well


def impedance_of(table: Table, layout: Layout) -> tuple[np.ndarray, Impedance, np.ndarray, list[str]]:
    """Frequencies (F,) in Hz, Z (F,) in ohm and lines (F,) of a table in its order, and notes.

    UsageError: see the checks below.
    """
    used = table.used
    for role in used:
        if len(places := table.places(role)) > 1:
            raise UsageError(f"line {table.line} names {' and '.join(short(table.names[i]) for i in places)}; needed: "
                             "one column of each quantity.")  # fmt: skip
    values = {role: scaled(table, place, layout) for role, place in used.items()}
    notes = told(table)
    lines = np.array([line for line, _ in table.rows])
    if (bad := ~np.all([np.isfinite(value) for value in values.values()], axis=0)).any():
        raise UsageError(f"line {lines[bad][0]} holds no finite number in a column that is needed ({bad.sum()} of "
                         f"{len(bad)} rows); needed: finite numbers in every row.")  # fmt: skip
    first, second, third = values.values()
    frequencies = first / (2 * np.pi) if "omega" in values else first
    if "omega" in values:
        notes.append("angular frequencies divided by 2 pi")
    if "modulus" in values:
        z = second * np.exp(1j * third)
    else:
        z = second + 1j * third
    measured = (frequencies != 0) & (z != 0)
    if not measured.all():
        notes.append(f"rows without a frequency or an impedance (0) left out: {(~measured).sum()}")
        if not measured.any():
            raise UsageError(f"all {len(z)} rows have frequency or impedance 0; needed: an impedance spectrum.")
    check_frequencies(frequencies, {table.names[i]: values[role] for role, i in used.items()}, lines, measured)
    check_sizes(frequencies[measured], z[measured], lines[measured])
    if "real" in values:
        check_polar(table, layout, z, measured)
        check_signs(z[measured])
    return frequencies[measured], z[measured], lines[measured], notes


def told(table: Table) -> list[str]:
    """Which columns are taken for what and in which unit, for the user."""
    parts = []
    for role, i in table.used.items():
        known = table.columns[i]
        measured = table.unit(i)
        per_area = " (all resistances are in ohm cm2, all capacitances in F/cm2)" if "cm2" in str(measured) else ""
        parts.append(f"{role} from {short(table.names[i])}{' negated' if known and known.sign < 0 else ''}"
                     + (per_area if measured else f", taken in {KINDS[role][0]}"))  # fmt: skip
    return ["; ".join(parts)]


def scaled(table: Table, place: int, layout: Layout) -> np.ndarray:
    """A column (F,) in Hz, rad/s, ohm or rad with its sign undone; nan where a cell is no number.

    UsageError for a unit that is none of the quantity's, that contradicts the line below the names, or whose m can be
    milli and mega.
    """
    known = table.columns[place]
    assert known is not None
    name, below = short(table.names[place]), table.units.get(place)
    raw = np.array(layout.values([cells[place] if place < len(cells) else "nan" for _, cells in table.rows]))
    needed = f"needed: {' or '.join(KINDS[known.role])}"
    lost = known.strange.strip("?")  # an ohm sign that an encoding lost: ?, or a letter or two beyond ASCII
    if lost and (lost.isascii() or len(lost) > 2):
        raise UsageError(f"column {name} has the unit {short(known.strange)}; {needed}.")
    if known.unit and below and known.unit != below:
        raise UsageError(f"column {name} has the unit {below.kind} in the line below its name; needed: one unit.")
    measured = table.unit(place)
    if measured and measured.kind not in KINDS[known.role]:
        raise UsageError(f"column {name} has the unit {measured.kind}; {needed}.")
    if measured and measured.scale is None:
        raise UsageError(f"the unit of column {name} can be milli or mega; needed: for instance mHz or MHz, mOhm or "
                         "MOhm.")  # fmt: skip
    if known.role == "phase" and (measured.kind if measured else phase_kind(raw, name)) == "deg":
        raw = np.deg2rad(raw)
    scale = measured.scale if measured and measured.scale else 1.0
    return known.sign * raw * scale


def phase_kind(phase: np.ndarray, name: str) -> str:
    """The unit of a phase (F,) that names none: degrees where it exceeds what radians of an impedance can be."""
    if np.nan_to_num(np.abs(phase)).max() > 2 * np.pi:
        return "deg"
    raise UsageError(f"column {name} lies within 2 pi and names no unit; needed: deg or rad in its name.")


def check_frequencies(
    frequencies: np.ndarray, columns: dict[str, np.ndarray], lines: np.ndarray, measured: np.ndarray
) -> None:
    """UsageError for negative frequencies, and where another column looks like the frequency and this one doesn't."""
    other = next((name for name, one in list(columns.items())[1:] if evenly(np.abs(one[measured]))), None)
    mine = next(iter(columns))
    if (frequencies < 0).any():
        worst = int(np.argmin(frequencies))
        hint = f" ({short(other)} looks like the frequency)" if other else ""
        raise UsageError(f"line {lines[worst]} has the frequency {frequencies[worst]:g} Hz; needed: above 0 Hz{hint}.")
    if other and not evenly(frequencies[measured], 0.3):
        raise UsageError(f"{short(other)} looks like the frequency (even steps over decades) and {short(mine)} does "
                         "not; needed: columns under their own names.")  # fmt: skip


def evenly(values: np.ndarray, tolerance: float = 0.05) -> bool:
    """Whether values rise or fall over a decade in steps that are equal in logarithm."""
    if len(values) < FEWEST or (values <= 0).any():
        return False
    steps = np.diff(np.log(values))
    return bool((steps * steps[0] > 0).all() and np.abs(steps.sum()) > np.log(10)
                and np.abs(steps / np.median(steps) - 1).mean() < tolerance)  # fmt: skip


def check_sizes(frequencies: np.ndarray, z: Impedance, lines: np.ndarray) -> None:
    """UsageError for sizes that no instrument measures."""
    for value, (low, high), what in ((frequencies, FREQUENCIES, "Hz"), (np.abs(z), IMPEDANCES, "ohm")):
        if (wrong := (value < low) | (value > high)).any():
            raise UsageError(f"line {lines[wrong][0]} has {value[wrong][0]:g} {what}; needed: {low:g} to {high:g} "
                             f"{what}.")  # fmt: skip


def check_polar(table: Table, layout: Layout, z: Impedance, measured: np.ndarray) -> None:
    """UsageError where |Z| or the phase, if the file has them, contradict Z' and Z''."""
    places = {role: table.places(role) for role in ("modulus", "phase")}
    if len(places["modulus"]) == 1:
        modulus = scaled(table, places["modulus"][0], layout)
        if (present := measured & (np.abs(modulus) > 0)).any():
            ratios = np.abs(z[present]) / np.abs(modulus[present])
            ratio = float(np.median(ratios))
            if np.quantile(np.abs(ratios - 1), MOST) > DISAGREE:
                raise UsageError(f"Z' and Z'' give {ratio:.3g} times the |Z| of the file (median); needed: the same "
                                 "unit, and columns under their own names.")  # fmt: skip
    if len(places["phase"]) == 1 and table.unit(places["phase"][0]):
        phase = scaled(table, places["phase"][0], layout)
        if (present := measured & np.isfinite(phase) & (phase != 0)).any():
            error, mirrored = (
                np.rad2deg(np.quantile(np.abs(np.angle(z[present] * np.exp(turn * phase[present]))), MOST))
                for turn in (-1j, 1j)
            )
            if error > DEGREES:
                how = "has the opposite sign to" if mirrored < DEGREES else f"is {error:.3g} degrees from"
                raise UsageError(f"the phase of the file {how} that of Z' and Z''; needed: columns that agree "
                                 "(-Z'' named so where it is negated).")  # fmt: skip


def check_signs(z: Impedance) -> None:
    """UsageError where Z' is mostly negative, or Z'' the same everywhere."""
    negative, positive = (z.real < 0).mean(), (z.imag > 0).mean()
    if negative > 0.5:
        what = "and Z'' positive (are the columns swapped?)" if positive > 0.5 else "(is its sign or column wrong?)"
        raise UsageError(f"Z' is negative in {negative:.0%} of the rows {what}; needed: Z' above 0 and Z'' below 0, "
                         "capacitive.")  # fmt: skip
    if len(z) >= FEWEST and z.imag[0] and (z.imag == z.imag[0]).all():
        raise UsageError(f"Z'' is {z.imag[0]:g} in all {len(z)} rows; needed: the measured values.")
