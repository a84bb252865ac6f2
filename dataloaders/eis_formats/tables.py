"""The tables of numbers in the text of an instrument's file: delimiter, decimal mark, columns' names, rows.

One reader serves all formats, since each of them names its columns in a line above the rows: a line that names a
frequency and an impedance begins a table, and lines without numbers in those columns end it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from dataloaders.eis_formats.layout import NUMBER, Layout, Line
from dataloaders.eis_formats.names import Column, Unit, column, listed, short, unit
from runtime.errors import UsageError

NEEDED = "needed: columns of frequency, Z' and Z'' (or |Z| and phase)"
COMPLETE = (("real", "imaginary"), ("modulus", "phase"))
MISSING = re.compile(r"[+-]?(?:nan|inf|infinity|n/?a|#n/a|#num!|#div/0!|null|none|-+|1[.,]#\w+)", re.IGNORECASE)
HINT = re.compile("[fFhHwWoOωΩ]")  # a line without any of them names no frequency
COMMENT = re.compile(r" *(?:#+|%+|//|!)\s*(?=\S)")
MOST_TEXT = 20_000  # lines that are looked at for the names of columns


@dataclass
class Table:
    """columns: what the names say (None: another quantity); rows: the line's number and its cells."""

    names: list[str]
    columns: list[Column | None]
    line: int
    units: dict[int, Unit] = field(default_factory=dict)  # of a row below the names
    rows: list[tuple[int, list[str]]] = field(default_factory=list)

    def places(self, role: str) -> list[int]:
        """The places of the columns with a role."""
        return [i for i, one in enumerate(self.columns) if one and one.role == role]

    def unit(self, place: int) -> Unit | None:
        """The unit of a column: its name's, else that of the row below."""
        known = self.columns[place]
        return known.unit if known and known.unit else self.units.get(place)

    @cached_property
    def used(self) -> dict[str, int]:
        """The places of the columns that give the impedance: frequency or omega, then a pair of COMPLETE."""
        first = "frequency" if self.places("frequency") else "omega"
        pair = next((pair for pair in COMPLETE if all(map(self.places, pair))), ())
        return {role: self.places(role)[0] for role in (first, *pair) if self.places(role)}


def tables(lines: Sequence[Line], layout: Layout) -> list[Table]:
    """The tables that hold an impedance, by names; else the one table without names: frequency, Z', Z''.

    UsageError where there is none, and for rows with too few or too many cells, or with text in place of a number.
    """
    found = named(lines, layout)
    if not found:
        return [unnamed(lines, layout)]
    full = [table for table in found if table.rows]
    if not full:
        raise UsageError(f"line {found[0].line} names the columns {listed(found[0].names)}, but no row of numbers "
                         "follows; needed: at least 5.")  # fmt: skip
    return full


def header(text: str, layout: Layout) -> tuple[list[str], list[Column | None]] | None:
    """Names and meaning of the columns if a line names those of an impedance, else None."""
    for names in splits(text, layout):
        if len(names) > 1:
            table = Table(names, [column(name) for name in names], 0)
            if len(table.used) == 3:
                return table.names, table.columns
    return None


def splits(text: str, layout: Layout) -> Iterator[list[str]]:
    """The ways to take a line of names apart: as the rows are, at wide gaps, at any white space before no bracket."""
    bare = text.strip().strip('"').strip()
    if layout.delimiter:
        yield layout.cells(text)
    yield re.split(r"\t|\s{2,}", bare)
    yield bare.split(";")
    yield re.sub(r"\s+(?=[(\[])", "", bare).split()


def named(lines: Sequence[Line], layout: Layout) -> list[Table]:
    """The tables below lines that name an impedance's columns."""
    found: list[Table] = []
    table, paused, closed, tried = None, False, 0, 0
    for number, text in lines:
        if not text.strip():
            continue
        commented = COMMENT.match(text)
        bare = text[commented.end() :] if commented else text.removeprefix("Definition=")
        likely = HINT.search(bare) is not None
        tried += likely
        if tried > MOST_TEXT:
            raise UsageError(f"it has more than {MOST_TEXT} lines of text; needed: an instrument's file of numbers.")
        if likely and (names := header(bare, layout)):
            table, paused, closed = Table(*names, number), False, 0
            found.append(table)
        elif table and not commented:
            cells = layout.cells(text)
            if (paused or closed) and numbers(cells, layout) == len(cells) == len(table.names):
                if closed:
                    raise UsageError(f"line {number} holds numbers after the text in line {closed}; needed: rows "
                                     "without text between them, or names above each table.")  # fmt: skip
                table, paused = Table(table.names, table.columns, table.line, table.units), False
                found.append(table)  # a sweep after its title
            if not paused and not closed and not add(table, number, cells, layout):
                paused = True
            if paused and len(cells) > 2:  # perhaps the names of another table
                paused, closed = False, number
    return found


def numbers(cells: list[str], layout: Layout) -> int:
    """How many cells are numbers or words for none."""
    number = NUMBER[layout.mark].fullmatch
    return len([cell for cell in cells if number(cell) or MISSING.fullmatch(cell)])


def add(table: Table, number: int, cells: list[str], layout: Layout) -> bool:
    """Adds a line to a table as a row; False where the line is none and ends the table."""
    wanted = [cells[i] if i < len(cells) else "" for i in table.used.values()]
    good = numbers(wanted, layout)
    if not table.rows and (good == 0 or len(cells) == 1):  # units or the number of rows
        table.units |= {i: found for i, cell in enumerate(cells[: len(table.names)]) if (found := unit(cell))}
        return True
    if good == 0 and (len(cells) < len(table.names) or layout.delimiter is None):
        return False
    if len(cells) > len(table.names):
        raise UsageError(f"line {number} has {len(cells)} columns, but line {table.line} names {len(table.names)} "
                         f"({listed(table.names)}); needed: equal ones.")  # fmt: skip
    if good < len(wanted):
        bad = next(i for i, cell in enumerate(wanted) if not numbers([cell], layout))
        name, got = (
            short(table.names[list(table.used.values())[bad]]),
            short(wanted[bad]) if wanted[bad] else "no value",
        )
        raise UsageError(f"line {number} has {got} for {name}; needed: a number in every row.")
    table.rows.append((number, cells))
    return True


def unnamed(lines: Sequence[Line], layout: Layout) -> Table:
    """The table of a file that names no columns: three of them, frequency, Z' and Z''."""
    roles = ("frequency", "real", "imaginary")
    table = Table(["column 1", "column 2", "column 3"], [Column(role, 1, None, "") for role in roles], 0)
    before = ""
    for number, text in lines:
        cells = layout.cells(text)
        if COMMENT.match(text) or not cells:
            before = text if cells else before
            continue
        good = numbers(cells, layout)
        if not table.rows:
            if good < 2 or good < len(cells):
                if good == 2 and len(cells) == 3:
                    add(table, number, cells, layout)  # raises: text in a first row
                before = text
                continue
            refuse_names(before, len(cells), layout)
            if len(cells) != 3:
                raise UsageError(f"line {number} has {len(cells)} columns without names; {NEEDED}, by name, or exactly "
                                 "three without names.")  # fmt: skip
        if good == 0 and len(cells) != 3:
            continue
        if len(cells) != 3:
            raise UsageError(f"line {number} has {len(cells)} columns and the rows before have 3; needed: equal ones.")
        add(table, number, cells, layout)
    if not table.rows:
        refuse_names(before, 0, layout)
        raise UsageError(f"it holds no table of numbers; {NEEDED}.")
    return table


def refuse_names(text: str, count: int, layout: Layout) -> None:
    """UsageError if a line names `count` columns (0: any number), of which not all that are needed were understood."""
    match = COMMENT.match(text)
    for names in splits(text[match.end() :] if match else text, layout):
        known = [name for name in names if column(name)]
        if (
            len(names) > 1
            and (len(names) == count or known and not count or len(known) > 1)
            and not numbers(names, layout)
        ):
            raise UsageError(f"the columns are named {listed(names)}, which gives no impedance over frequency; {NEEDED}"
                             + (f"; understood: {listed(known)}." if known else "."))  # fmt: skip
