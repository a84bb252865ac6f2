"""From the tables of a file to spectra: one for each sweep of (F,) points, and checks of their steps."""

from collections.abc import Iterator

import numpy as np

from dataloaders.eis_formats.layout import Layout
from dataloaders.eis_formats.phase_slope import check_phase
from dataloaders.eis_formats.tables import Table
from dataloaders.eis_formats.values import impedance_of
from domains.eis import Impedance
from domains.eis_spectrum import FEWEST, Spectrum
from runtime.errors import UsageError

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
        frequencies, z, lines, said = impedance_of(table, layout)
        pieces, more = split(frequencies, z, lines)
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


def split(frequencies: np.ndarray, z: Impedance, lines: np.ndarray) -> tuple[list[np.ndarray], list[str]]:
    """The rows of each sweep, and notes: a sweep ends where the frequency turns or starts again.

    UsageError for a frequency that occurs twice in a sweep with different Z, for rows in no order, and for jumps that
    only a change of the unit explains.
    """
    notes = []
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
    for i, step in enumerate(np.sign(np.diff(frequencies[rows])).tolist(), start=1):
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
