"""A record of what scripts/run_estimator.py ran on this machine, one JSON object a line."""

import fcntl
import json
import os
import re
import time
from pathlib import Path
from typing import Any

from runtime.errors import UsageError


def path() -> Path:
    """Where the record is: $XDG_STATE_HOME/mlx-lab/history.jsonl, by default in ~/.local/state."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "mlx-lab" / "history.jsonl"


def add(entry: dict[str, Any]) -> None:
    """Appends an entry as one whole line, whoever else writes."""
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **entry}, default=str) + "\n"
    with file.open("a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(end - 1)
            line = line if stream.read(1) == b"\n" else "\n" + line  # a kill cut the last line short
        stream.write(line.encode())


def entries(limit: int | None = 15, pattern: str = "", errors: bool = False) -> list[dict[str, Any]]:
    """The newest `limit` entries, newest first, whose line matches a regular expression; errors: only failed ones."""
    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1, got {limit}.")
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--filter must be a regular expression, got {pattern!r}: {error}.") from error
    found = []
    for line in reversed(path().read_text().splitlines() if path().exists() else []):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut short by a kill
        if wanted.search(line) and (not errors or "error" in entry):
            found.append(entry)
    return found[:limit]


def table(found: list[dict[str, Any]]) -> list[str]:
    """Lines for people: when, command, file, arguments, result or error."""
    rows = [("when", "command", "file", "arguments", "result")]
    for entry in found:
        given = " ".join(f"{k}={v}" for k, v in entry["arguments"].items())
        values = " ".join(
            f"{k}={v:.5g}" for k, v in entry.get("result", {}).items() if isinstance(v, int | float) and "/" in k
        )
        file = Path(entry["file"]).name
        rows.append((entry["when"][:19].replace("T", " "), entry["command"], file, given, entry.get("error", values)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join([*(f"{row[c]:<{widths[c]}}" for c in range(4)), row[4]]).rstrip() for row in rows]
