"""Circuits behind measured impedance spectra, with their uncertainty, from an instrument's file.

usage: python scripts/predict_eis.py FILE|FOLDER [key=value ...]

  FILE|FOLDER            Gamry .dta, BioLogic .mpt, ZPlot .z, VersaStudio .par, NOVA text, a table; or a folder of them
  known.Rsh=460          a component that you know: Rsh, Ra, Rb (ohm), Ca, Cb (farad), Rs (ohm, in series with all)
  known=table.csv        known components by file: a column `file`, and columns of these names
  topology=parallel      parallel (an epithelium: Rs + Rsh beside the two membranes) or series
  model=parallel         a checkpoint, a run's folder or a shipped network; left out: the topology's shipped one
  top_k=10               likeliest circuits to list
  polish=true            fit the best of them to the spectrum (Levenberg-Marquardt); false: as the network says
  noise=auto             share of |Z| on the real and on the imaginary part, such as 0.01; auto: from the spectrum; or a
                         kind, such as phase or phase:0.01: modulus (auto's: equal errors of both parts), proportional
                         (errors in proportion to each part), phase (of the angle, in radians), likeliest (of the three)
  series=false           true: the spectra are a series (in the order of their files): a membrane keeps its name in all
  initial_guess=false    true: also print the circuits as impedance.py's CustomCircuit takes them
  out=results.json       all that was found, .json, or .csv with a row a spectrum
  picture=spectrum.png   Nyquist, Bode and residual; of several spectra one picture, and one of each in the folder
                         spectrum/
  seed=0                 of the posterior's draws
  device=auto            auto, gpu or cpu

With all five components known they are checked against the spectrum instead. A file of a folder that is no spectrum
is reported and left out; the exit status is then 2, as for any mistake.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
from dataloaders.eis_files import Reading, read_any
from domains.eis import check_topology
from domains.eis_noise import KINDS
from evaluation.eis_predictor import LIKELIEST, EISParameterCompleter
from runtime.errors import UsageError
from scripts import eis_known
from scripts.arguments import at_least, command, ends_in, parse
from scripts.eis_analysis import Options, analyse
from scripts.eis_export import write_records
from scripts.eis_labels import follow
from scripts.eis_models import load
from scripts.eis_report import report
from visualizers.eis import Picture, draw_folder, draw_spectrum


@dataclass
class Settings:
    """The keys of the command line."""

    topology: str | None = None
    model: str | None = None
    known: str | None = None
    top_k: int = 10
    polish: bool = True
    noise: str = "auto"
    series: bool = False
    initial_guess: bool = False
    out: str | None = None
    picture: str | None = None
    seed: int = 0
    device: str = "auto"


def noise(text: str) -> tuple[float | None, str | None]:
    """Level (None: auto) and kind (None: not said) of noise=auto, noise=0.01, noise=phase or noise=phase:0.01."""
    kinds = (*KINDS, LIKELIEST)
    kind, _, level = text.partition(":") if text.split(":")[0] in kinds else ("", "", text)
    if level == "auto" or (kind and text == kind):
        return None, kind or None
    try:
        value = float(level)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise UsageError(f"noise must be auto or a share of |Z| above 0 and below 1, such as 0.01, or one of "
                         f"{', '.join(kinds)}, alone or with a share, such as phase:0.01; got {text!r}.")  # fmt: skip
    return value, kind or None


def checked(arguments: list[str]) -> tuple[Path, Settings, dict[str, float]]:
    """The path, the settings and the known values of a command line."""
    first, *others = arguments
    if not Path(first).exists() and "=" in first:
        raise UsageError(f"the file or folder of spectra comes first, before key=value; got {first!r}.")
    others, known = eis_known.split(others)
    given, _ = parse(others, Settings)
    at_least(1, top_k=given.top_k)
    at_least(0, seed=given.seed)
    ends_in((".json", ".csv"), out=given.out)
    ends_in((".png", ".svg", ".pdf"), picture=given.picture)
    if given.topology is not None:
        check_topology(given.topology)
    path = Path(first)
    for name, written in (("out", given.out), ("picture", given.picture)):
        if written is not None and path.is_dir() and Path(written).resolve().parent == path.resolve():
            raise UsageError(f"{name}={written} lies among the spectra, where it would be read as one next time; "
                             "needed: another folder.")  # fmt: skip
    return path, given, known


def known_of(reading: Reading, table: dict[str, dict[str, float]] | None, given: dict[str, float]) -> dict[str, float]:
    """What is known of a file's circuit: its row of the table, and what was given for all."""
    if table is None:
        return given
    if reading.path.name not in table:
        raise UsageError(f"{reading.path.name}: the table of known components has no row for it.")
    return table[reading.path.name] | given


def analysed(
    readings: list[Reading], given: Settings, known: dict[str, float], completer: EISParameterCompleter
) -> Iterator[tuple[dict[str, Any], Picture] | str]:
    """The record and picture of each spectrum, or a sentence on why there is none."""
    table = eis_known.table(given.known) if given.known is not None else None
    options = Options(given.top_k, given.polish, *noise(given.noise), given.initial_guess, given.seed)
    for reading in readings:
        for spectrum in reading.spectra:
            try:
                record, picture = analyse(spectrum, known_of(reading, table, known), completer, options)
            except UsageError as error:
                yield f"{reading.path.name}: {error}"
                continue
            yield {"file": reading.path.name, "format": reading.format, "read_as": reading.notes, **record}, picture


def draw(pictures: list[Picture], path: str) -> list[Path]:
    """The picture of one spectrum; of several: one of all, and one of each in a folder called after it."""
    if len(pictures) == 1:
        return [draw_spectrum(pictures[0], path)]
    file = Path(path)
    each = [draw_spectrum(one, file.with_suffix("") / f"{one.name}{file.suffix}") for one in pictures]
    return [draw_folder(pictures, path), *each]


def work(arguments: list[str]) -> None:
    """Reads, predicts, prints and writes; UsageError at the end if a spectrum had no answer."""
    path, given, known = checked(arguments)
    readings, refused = read_any(path)
    completer = load(given.model or given.topology or "parallel", given.device)
    topology = completer.predictor.topology
    if given.topology not in (None, topology):
        raise UsageError(f"model={given.model} is of {topology} circuits, got topology={given.topology}.")
    for sentence in refused:
        print(f"{sentence}\n")
    records, pictures = [], []
    for answer in analysed(readings, given, known, completer):
        if isinstance(answer, str):
            refused.append(answer)
            print(f"{answer}\n")
            continue
        records.append(answer[0])
        pictures.append(answer[1])
        if not given.series:
            print(f"{report(answer[0])}\n")
    if given.series:
        records = follow(records)
        print("\n\n".join(map(report, records)) + "\n")
    if given.out is not None and records:
        print(f"results: {write_records(records, given.out)}")
    if given.picture is not None and pictures:
        print("\n".join(f"picture: {one}" for one in draw(pictures, given.picture)))
    if refused:
        raise UsageError(f"{len(refused)} of {len(records) + len(refused)} files or spectra had no answer (see above).")


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
