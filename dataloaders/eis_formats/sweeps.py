"""From a table of a file to spectra of (F,) points: units, signs, checks for contradictions, a spectrum a sweep."""

from collections.abc import Iterator

import numpy as np

from dataloaders.eis_formats.names import KINDS
from dataloaders.eis_formats.phase_slope import check_phase
from dataloaders.eis_formats.tables import Layout, Table, short
from domains.eis import Impedance
from domains.eis_spectrum import FEWEST, Spectrum
from runtime.errors import UsageError

FREQUENCIES = (1e-9, 1e12)  # Hz, beyond which no instrument measures
IMPEDANCES = (1e-12, 1e18)  # ohm
DISAGREE = 0.01  # relative, of |Z| against Z' and Z''
DEGREES = 1.0  # of the phase against Z' and Z''
MOST = 0.9  # of the points must agree so well
JUMP = 100.0  # a factor between neighbouring points, beyond that of their frequencies
APART = 1e-3  # relative distance of frequencies that are different ones


def spectra(tables: list[Table], layout: Layout, name: str) -> tuple[list[Spectrum], list[str]]:
    """The spectra of a file's tables, called `name` (of several: with the sweep's number), and notes for the user.

    UsageError for values or units that contradict each other.
    """
    found: list[tuple[np.ndarray, Impedance]] = []
    notes: list[str] = []
    short_ones = 0
    for table in tables:
        frequencies, z, said = impedance_of(table, layout)
        pieces, more = split(frequencies, z, table)
        whole = [piece for piece in pieces if len(piece) >= FEWEST]
        short_ones += len(pieces) - len(whole)
        if not whole and len(tables) == 1:
            whole, short_ones = pieces[:1], 0  # for the sentence about its few points
        found += [(frequencies[piece], z[piece]) for piece in whole]
        notes += said + more
    if not found:
        raise UsageError(f"it holds {len(tables)} tables of fewer than {FEWEST} points; needed: at least {FEWEST} "
                         "points of a sweep.")  # fmt: skip
    if short_ones:
        notes.append(f"sweeps of fewer than {FEWEST} points left out: {short_ones}")
    names = [name] if len(found) == 1 else [f"{name} sweep {i + 1}" for i in range(len(found))]
    made = [Spectrum(*pair, name=called) for pair, called in zip(found, names, strict=True)]
    for one in made:
        check_phase(one.frequencies, one.z)
    return made, list(dict.fromkeys(notes))


def impedance_of(table: Table, layout: Layout) -> tuple[np.ndarray, Impedance, list[str]]:
    """Frequencies (F,) in Hz and Z (F,) in ohm of a table in its order, and notes. UsageError: see the checks below."""
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
    return frequencies[measured], z[measured], notes


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
    raw = np.array([layout.value(cells[place]) if place < len(cells) else np.nan for _, cells in table.rows])
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


def split(frequencies: np.ndarray, z: Impedance, table: Table) -> tuple[list[np.ndarray], list[str]]:
    """The rows of each sweep, and notes: a sweep ends where the frequency turns or starts again.

    UsageError for a frequency that occurs twice in a sweep with different Z, for rows in no order, and for jumps that
    only a change of the unit explains.
    """
    lines, notes = np.array([line for line, _ in table.rows])[-len(z) :], []
    keep = np.ones(len(z), bool)
    keep[1:] = (np.diff(frequencies) != 0) | (np.diff(z) != 0)
    if not keep.all():
        notes.append(f"repeated rows left out: {(~keep).sum()}")
    pieces = list(runs(np.flatnonzero(keep), frequencies))
    ordered = np.sort(frequencies[keep])
    distinct = len(ordered) < 2 or bool((np.diff(ordered) > APART * ordered[1:]).all())
    spans = sorted((frequencies[piece].min(), frequencies[piece].max()) for piece in pieces)
    disjoint = all(one[1] < two[0] for one, two in zip(spans, spans[1:], strict=False))
    if len(pieces) > 1 and distinct and (disjoint or min(map(len, pieces)) < FEWEST):
        check_restart(frequencies, z, pieces, lines)
        notes.append("rows put in the order of frequency")
        pieces = [np.flatnonzero(keep)]
    if sum(len(piece) for piece in pieces if len(piece) >= FEWEST) * 2 < keep.sum() and len(pieces) > 1:
        raise UsageError(f"the frequency turns {len(pieces) - 1} times in {keep.sum()} rows; needed: sweeps up or down "
                         f"of at least {FEWEST} rows.")  # fmt: skip
    check_restart(frequencies, z, pieces, lines)
    for piece in pieces:
        check_piece(frequencies[piece], z[piece])
    return pieces, notes


def runs(rows: np.ndarray, frequencies: np.ndarray) -> Iterator[np.ndarray]:
    """The rows in pieces of rising or falling frequency; equal neighbours stay together."""
    start, direction = 0, 0.0
    for i in range(1, len(rows)):
        step = np.sign(frequencies[rows[i]] - frequencies[rows[i - 1]])
        if direction and step and step != direction:
            yield rows[start:i]
            start, direction = i, 0.0
        else:
            direction = direction or step
    yield rows[start:]


def check_restart(frequencies: np.ndarray, z: Impedance, pieces: list[np.ndarray], lines: np.ndarray) -> None:
    """UsageError where the frequency starts again and Z goes on as if it had not: Hz below kHz."""
    for before, after in zip(pieces, pieces[1:], strict=False):
        last, first = before[-1], after[0]
        if abs(frequencies[first] / frequencies[before[0]] - 1) < 0.01:
            continue  # a sweep that starts where the one before did
        ratio = abs(np.log(frequencies[first] / frequencies[last]))
        step = np.abs(ratio - np.log([1e3, 1e6])).min()  # in the frequency, were it in one unit
        moved = abs(np.log(np.abs(z[first] / z[last])))
        size = np.abs(z[np.concatenate([before, after])])
        if step < np.log(3) and moved < max(step, 0.1) and size.max() > 1.5 * size.min():
            raise UsageError(f"the frequency goes from {frequencies[last]:g} to {frequencies[first]:g} Hz around line "
                             f"{lines[first]} while Z stays; needed: one unit of frequency in all rows.")  # fmt: skip


def check_piece(frequencies: np.ndarray, z: Impedance) -> None:
    """UsageError for a frequency twice and for jumps of |Z| that no circuit gives."""
    order = np.argsort(frequencies, kind="stable")
    f, size = frequencies[order], np.abs(z[order])
    if len(twice := f[1:][np.diff(f) == 0]):
        raise UsageError(f"the frequency {twice[0]:g} Hz occurs twice in a sweep with different impedances; needed: "
                         "each frequency once.")  # fmt: skip
    jumps = np.abs(np.diff(np.log(size))) - np.diff(np.log(f))
    if len(jumps) and jumps.max() > np.log(JUMP):
        at = int(np.argmax(jumps))
        raise UsageError(f"|Z| jumps from {size[at]:.3g} to {size[at + 1]:.3g} ohm between {f[at]:g} and {f[at + 1]:g} "
                         "Hz; needed: one unit of Z in all rows.")  # fmt: skip
    for part, called in ((z.real[order], "Z'"), (z.imag[order], "Z''")):
        steps = np.abs(np.diff(np.log(np.maximum(np.abs(part), 1e-300))))
        # at so small a distance nature changes a part by less than a tenth of that
        for at in np.flatnonzero((np.abs(steps - np.log(1e3)) < np.log(3)) & (np.diff(f) < f[:-1])):
            beside = np.concatenate([steps[max(at - 3, 0) : at], steps[at + 1 : at + 4]])
            if len(beside) == 6 and beside.max() < np.log(5):
                raise UsageError(f"{called} changes a thousandfold between {f[at]:g} and {f[at + 1]:g} Hz and hardly "
                                 "beside that; needed: one unit in all rows.")  # fmt: skip
