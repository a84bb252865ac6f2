"""Circuits behind measured impedance spectra by least squares alone: no network, no start, no posterior.

usage: python scripts/fit_eis.py FILE|FOLDER [key=value ...]

  FILE|FOLDER        what predict_eis.py reads: an instrument's file, a table, or a folder of them
  topology=parallel  parallel (an epithelium: Rs + Rsh beside the two membranes) or series
  rs=20              series resistance that you know, ohm; left out: fitted (parallel), or part of Rsh (series)
  out=fits.json      all that was found, .json, or .csv with a row a spectrum

Spectra of the same frequencies are fitted together, .2 ms each; reading and judging one takes some ms. What a spectrum
does not determine, such as Rsh of a parallel circuit, is a dash in the table; files hold the value of one circuit that
fits. predict_eis.py takes known components and gives the posterior. A file of a folder that is no spectrum is reported
and left out; the exit status is then 2, as for any mistake.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
import numpy as np

from dataloaders.eis_files import read_any
from domains import eis_start
from domains.eis import NAMES, canonical, check_topology, impedance
from domains.eis_alarm import residual_alarm
from domains.eis_identify import verdict
from domains.eis_kk import lin_kk
from domains.eis_spectrum import Spectrum
from domains.eis_units import UNIT_OF, si
from evaluation.eis_prediction import plain
from runtime.columns import columns
from runtime.errors import UsageError
from scripts.arguments import command, ends_in, parse
from scripts.eis_analysis import noise_level
from scripts.eis_export import write_records

Circuit = tuple[np.ndarray, float]  # parameters (5,), Rs in ohm


@dataclass
class Settings:
    """The keys of the command line."""

    topology: str = "parallel"
    rs: float | None = None
    out: str | None = None


def circuits(spectra: Sequence[Spectrum], topology: str, rs: float | None) -> list[Circuit]:
    """The fitted circuit of each spectrum; rs: series resistance in ohm, None to fit it."""
    alike: dict[bytes, list[int]] = {}
    for i, spectrum in enumerate(spectra):
        alike.setdefault(spectrum.frequencies.tobytes(), []).append(i)
    found: dict[int, Circuit] = {}
    for rows in alike.values():
        fit = eis_start.fit(spectra[rows[0]].frequencies, np.stack([spectra[i].z for i in rows]), topology, rs)
        found |= dict(zip(rows, zip(canonical(fit.parameters), map(float, fit.rs), strict=True), strict=True))
    return [found[i] for i in range(len(spectra))]


def record(spectrum: Spectrum, circuit: Circuit, topology: str, rs: float | None) -> dict[str, Any]:
    """What a circuit says of its spectrum: quantities with relative deviations (Rs: in ohm), residual, alarm."""
    parameters, own_rs = circuit
    noise, _ = noise_level(lin_kk(spectrum), None)
    z = impedance(parameters, spectrum.frequencies, topology, own_rs)
    alarm = residual_alarm(spectrum.frequencies, z, spectrum.z, noise, () if not rs else ("Rs",))
    says = verdict(parameters, spectrum.frequencies, topology, noise, rs=own_rs, rs_free=rs is None)
    quantities = {name: {"value": one.value, "deviation": one.deviation, "determined": one.determined}
                  for name, one in says.quantities.items()}  # fmt: skip
    residual = float((np.abs(z - spectrum.z) / np.abs(spectrum.z)).mean())
    return plain({
        "name": spectrum.name, "points": len(spectrum.z), "topology": topology, "noise": noise, "residual": residual,
        "circuit": dict(zip(NAMES, parameters, strict=True)) | {"Rs": own_rs}, "quantities": quantities,
        "alarm": {"raised": alarm.raised, "sentence": alarm.sentence},
    })  # fmt: skip


def table(records: Sequence[dict[str, Any]]) -> list[str]:
    """A row a spectrum: what it determines, how far the circuit is from it, and whether it explains it."""
    names = [name for name in UNIT_OF if any(name in one["quantities"] for one in records)]
    rows = [("", *names, "|dZ|/|Z|", "noise", "")]
    for one in records:
        values = [(one["quantities"].get(name), UNIT_OF[name]) for name in names]
        shown = [si(value["value"], unit) if value and value["determined"] else "-" for value, unit in values]
        alarm = "ALARM: not explained" if one["alarm"]["raised"] else ""
        rows.append((one["name"], *shown, f"{one['residual']:.2%}", f"{one['noise']:.2%}", alarm))
    return columns(rows)


def work(arguments: list[str]) -> None:
    """Reads, fits, prints and writes; UsageError at the end if a file was no spectrum."""
    first, *others = arguments
    if not Path(first).exists() and "=" in first:
        raise UsageError(f"the file or folder of spectra comes first, before key=value; got {first!r}.")
    given, _ = parse(others, Settings)
    check_topology(given.topology)
    ends_in((".json", ".csv"), out=given.out)
    if given.rs is not None and not 0 <= given.rs < np.inf:
        raise UsageError(f"rs must be a resistance in ohm, 0 or above, got {given.rs:g}.")
    readings, refused = read_any(Path(first))
    spectra = [(reading, spectrum) for reading in readings for spectrum in reading.spectra]
    rs = 0.0 if given.rs is None and given.topology == "series" else given.rs
    found = circuits([spectrum for _, spectrum in spectra], given.topology, rs)
    records = [{"file": reading.path.name, "format": reading.format, **record(spectrum, circuit, given.topology, rs)}
               for (reading, spectrum), circuit in zip(spectra, found, strict=True)]  # fmt: skip
    print("\n".join([*refused, *table(records)]))
    if given.out is not None:
        print(f"results: {write_records(records, given.out)}")
    if refused:
        raise UsageError(f"{len(refused)} of {len(readings) + len(refused)} files are no spectra (see above).")


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
