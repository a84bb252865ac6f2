"""The results page: every row has a command that could start, and no number that README and log don't know."""

import re

import pytest

from tests.docs import pages

ROOT = pages.ROOT
KNOWN = (ROOT / "README.md").read_text() + (ROOT / "EXPERIMENT_LOG.md").read_text()
NUMBER = re.compile(r"(?<![\w.,])\d*[.,]?\d[\d.,]*(?<![.,])")


def rows() -> list[list[str]]:
    """The cells of every table's rows, without heads."""
    found, head = [], True
    for line in (ROOT / "docs" / "results.md").read_text().splitlines():
        if line.startswith("|---"):
            head = False
        elif not line.startswith("|"):
            head = True
        elif not head:
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


ROWS = rows()
COMMANDS = sorted({command for row in ROWS for command in re.findall(r"`([^`]+)`", row[-1])})


def test_every_row_has_a_command():
    assert len(ROWS) > 50
    for row, above in zip(ROWS, [None, *ROWS], strict=False):
        assert re.search(r"`(python|pytest|make) ", row[-1]) or (row[-1] == "the same" and above), row


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_could_start(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pages.prepare(tmp_path)
    pages.check(command)


def test_every_number_of_a_result_is_in_the_readme_or_the_log():
    known = {number.lstrip("0") for number in NUMBER.findall(KNOWN)}
    for row in ROWS:
        unknown = [number for cell in row[1:-1] for number in NUMBER.findall(cell) if number.lstrip("0") not in known]
        assert not unknown, f"{unknown} of {row[0]!r} are not in README.md or EXPERIMENT_LOG.md"
