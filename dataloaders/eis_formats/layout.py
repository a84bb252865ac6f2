"""How the text of a table is cut: the delimiter of its cells and the decimal mark of its numbers."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

from dataloaders.eis_formats.names import short
from runtime.errors import UsageError

NUMBER = {mark: re.compile(rf"[+-]?(?:\d+{m}?\d*|{m}\d+)(?:[eEdD][+-]?\d+)?", re.ASCII)
          for mark, m in ((".", r"\."), (",", ","))}  # fmt: skip
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+", re.ASCII)
GROUPED = re.compile(r"\b\d{1,3}(?:,\d{3}){2,}\b|\b\d{1,3}(?:,\d{3})+\.\d", re.ASCII)
DELIMITERS = ("\t", ";", ",", None)  # None: white space
SAMPLED = 100  # lines that are looked at to find the delimiter
Line = tuple[int, str]  # its number and text


@dataclass(frozen=True)
class Layout:
    """delimiter: one character, or None for white space; mark: the decimal mark."""

    delimiter: str | None
    mark: str

    def cells(self, text: str) -> list[str]:
        """The cells of a line, without empty ones at its end."""
        if self.delimiter is None:
            return text.split()
        if '"' in text:
            cells = next(csv.reader([text], delimiter=self.delimiter, skipinitialspace=True), [])
            cells = [cell.strip() for cell in cells]
        else:
            cells = [cell.strip() for cell in text.split(self.delimiter)]
        while cells and not cells[-1]:
            cells.pop()
        return cells

    def is_number(self, cell: str) -> bool:
        """Whether a cell is a number in this decimal mark."""
        return NUMBER[self.mark].fullmatch(cell) is not None

    def values(self, cells: list[str]) -> list[float]:
        """`value` of each."""
        try:
            if self.mark == ".":
                return list(map(float, cells))
        except ValueError:
            pass
        return list(map(self.value, cells))

    def value(self, cell: str) -> float:
        """The number of a cell that is one; nan or infinite for words such as nan, inf or #N/A."""
        try:
            return float(cell.replace(",", ".") if self.mark == "," else cell)
        except ValueError:  # 1d5 is Fortran's 1e5
            return float(re.sub("[,dD]", lambda m: "." if m[0] == "," else "e", cell)) if self.is_number(cell) else nan


def layout_of(lines: Sequence[Line]) -> Layout:
    """The delimiter and decimal mark by which most cells of the lines are numbers.

    UsageError for commas that group thousands, or can be that and decimal marks alike.
    """
    count = min(SAMPLED, len(lines))  # at multiples of the golden ratio, which no repeating block is in step with
    places = (
        sorted(int(len(lines) * (i * 0.6180339887 % 1)) for i in range(count)) if count < len(lines) else range(count)
    )
    sample = [lines[i][1] for i in places]
    seen = "".join(sample)
    best, found = 0, Layout(",", ".")
    for delimiter in DELIMITERS:
        for mark in (".", ",") if "," in seen and (delimiter != "," or '"' in seen) else (".",):
            if delimiter not in seen if delimiter else len(seen.split()) < 2:
                continue  # no line of more than one cell
            layout, score, number = Layout(delimiter, mark), 0, NUMBER[mark].fullmatch
            for text in sample:
                cells = list(filter(None, layout.cells(text)))
                if len(cells) > 1 and (numbers := len(list(filter(number, cells)))) > 1:
                    score += 2 * numbers - len(cells)
            if score > best:
                best, found = score, layout
    other = [text for text in sample if ";" in text or "\t" in text]
    if found.delimiter == "," and (grouped := GROUPED.search("\n".join(other))):
        raise UsageError(f"commas group thousands, as in {short(grouped[0])}; needed: ungrouped numbers.")
    if found.mark == ",":
        cells = [cell for text in sample for cell in found.cells(text) if "," in cell and found.is_number(cell)]
        if cells and all(map(THOUSANDS.fullmatch, cells)):
            raise UsageError(f"a comma as in {cells[0]} can be a decimal mark or group thousands; needed: "
                             "numbers with a decimal point, ungrouped.")  # fmt: skip
    return found
