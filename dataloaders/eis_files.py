"""Measured impedance spectra from instruments' files, whose format is recognised by what is in them."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloaders.eis_formats.layout import Line, layout_of
from dataloaders.eis_formats.names import plain
from dataloaders.eis_formats.sweeps import spectra
from dataloaders.eis_formats.tables import NEEDED, tables
from domains.eis_spectrum import Spectrum
from runtime.errors import UsageError

LARGEST = 8_000_000  # bytes; a spectrum of 200 points is a hundredth of it
MOST_LINES = 200_000
LONGEST_LINE = 10_000
BINARIES = {b"PK\x03\x04": "a zip archive, such as an Excel or LibreOffice sheet",
            b"\xd0\xcf\x11\xe0": "an old Excel or Word document", b"BIO-LOGIC": "a binary BioLogic file (.mpr)",
            b"\x89PNG": "a picture", b"%PDF": "a PDF", b"\x1f\x8b": "gzip-compressed"}  # fmt: skip
BYTE_ORDER = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
CONTROL = re.compile(r"[\x00-\x08\x0e-\x19\x1b-\x1f]")
# the format's name and what its text holds (the first 4,000 characters): a word, looked for first, and a pattern
FORMATS = (
    ("Gamry", ("EXPLAIN", "ZCURVE"), re.compile(r"^EXPLAIN\b|^ZCURVE\b", re.MULTILINE)),
    ("BioLogic", ("EC-Lab", "freq/Hz"), re.compile(r"^EC-Lab ASCII FILE|^freq/Hz\tRe\(Z\)/Ohm", re.MULTILINE)),
    ("ZPlot", ("ZPLOT", "Z60W", "Z'(a)"),
     re.compile(r"^\W*(?:ZPLOT|Z60W)|Z'\(a\)\W+Z''\(b\)", re.MULTILINE)),
    ("VersaStudio", ("<Application>", "<Segment", "Definition=Segment"),
     re.compile(r"^<Application>|^<Segment\d*>|^Definition=Segment", re.MULTILINE)),
    ("NOVA", ("Z' (Ω)",), re.compile(r"Z' \(Ω\)\W+-Z'' \(Ω\)")),
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """What a file holds: its spectra, the format it was taken for, and notes on what was assumed, for the user."""

    path: Path
    format: str
    spectra: list[Spectrum]
    notes: list[str]


def read(path: str | os.PathLike) -> list[Spectrum]:
    """The spectra of a file, one for each sweep, called after the file.

    Formats: Gamry .dta, BioLogic .mpt, ZPlot .z, VersaStudio .par, NOVA text, and tables separated by tabs, commas,
    semicolons or white space with decimal points or commas: by the columns' names (a minus sign in -Z'' is undone,
    units are converted), or without names three columns, frequency (Hz), Z', Z'' (ohm). Text is UTF-8 or UTF-16 with a
    mark, else Windows-1252. UsageError, one sentence that begins with the file's name, for whatever is no spectrum.
    """
    return examine(path).spectra


def examine(path: str | os.PathLike) -> Reading:
    """As `read`, with the format and notes on what was assumed (units, signs, rows left out)."""
    path = Path(path)
    try:
        text, notes = load(path)
        lines = numbered(text)
        layout = layout_of(lines)
        with np.errstate(all="ignore"):
            found, told = spectra(tables(lines, layout), layout, path.stem)
    except UsageError as error:
        raise UsageError(f"{plain(path.name)}: {error}") from error
    separated = {"\t": "tabs", ";": "semicolons", ",": "commas", None: "white space"}[layout.delimiter]
    head = text[:4000]
    kind = next((name for name, words, sign in FORMATS if any(map(head.__contains__, words)) and sign.search(head)),
                f"table separated by {separated}")  # fmt: skip
    if layout.mark == ",":
        notes.append("decimal commas")
    return Reading(path, kind, found, notes + told)


def read_any(path: Path) -> tuple[list[Reading], list[str]]:
    """What a file or folder holds, and a sentence on each of a folder's files that is no spectrum."""
    return read_folder(path) if path.is_dir() else ([examine(path)], [])


def read_folder(path: str | os.PathLike) -> tuple[list[Reading], list[str]]:
    """The readings of a folder's files in the order of their names, and a sentence on each file that was none.

    Subfolders and hidden files are left alone. UsageError if the folder does not exist or no file of it is a spectrum.
    """
    path = Path(path)
    if not path.is_dir():
        raise UsageError(f"{path} is no folder; needed: a folder of instruments' files.")
    readings, refused = [], []
    files = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
    for file in files:
        try:
            readings.append(examine(file))
        except UsageError as error:
            refused.append(str(error))
    if not readings:
        first = f", the first because {refused[0]}" if refused else "."
        raise UsageError(f"none of the {len(files)} files in {path} is a spectrum{first}")
    return readings, refused


def load(path: Path) -> tuple[str, list[str]]:
    """The text of a file and notes on its encoding; UsageError if it is missing, no file, too large or no text."""
    try:
        if path.is_dir():
            raise UsageError("is a folder; needed: a file.")
        if not path.exists():
            raise UsageError(f"there is no such file in {path.parent}; needed: an instrument's file.")
        if not path.is_file():
            raise UsageError("is no plain file; needed: an instrument's file.")
        with path.open("rb") as file:
            data, size = file.read(LARGEST + 1), path.stat().st_size
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise UsageError(f"it can't be read ({error}); needed: a readable file.") from error
    if len(data) > LARGEST:
        raise UsageError(f"it has {size / 1e6:.0f} MB; needed: an instrument's text of at most {LARGEST // 10**6} MB "
                         "(spectra have some kB).")  # fmt: skip
    for start, what in BINARIES.items():
        if data.startswith(start):
            raise UsageError(f"it is {what}; needed: the instrument's text or CSV export.")
    notes: list[str] = []
    encoding = next((name for mark, name in BYTE_ORDER.items() if data.startswith(mark)), "utf-8-sig")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
        notes.append("not UTF-8, read as Windows-1252")
    if not text.strip():
        raise UsageError(f"it is empty; {NEEDED}.")
    if "\x00" in text:
        raise UsageError(f"it is binary (a NUL in character {text.index(chr(0)) + 1}); needed: a text file.")
    share = len(CONTROL.findall(text)) / len(text)
    if share > 0.01:
        raise UsageError(f"it is binary ({share:.0%} control characters); needed: a text file.")
    return text.replace("−", "-"), notes


def numbered(text: str) -> list[Line]:
    """The lines of a text with their numbers from 1; UsageError for too many or too long ones."""
    lines = re.split(r"\r*\n|\r", text) if "\r" in text else text.split("\n")
    if len(lines) > MOST_LINES:
        raise UsageError(f"it has {len(lines)} lines; needed: at most {MOST_LINES}.")
    if max(map(len, lines)) > LONGEST_LINE:
        number, size = next((i, len(line)) for i, line in enumerate(lines, 1) if len(line) > LONGEST_LINE)
        raise UsageError(f"line {number} has {size} characters; needed: rows of at most {LONGEST_LINE}.")
    return list(enumerate(lines, 1))
