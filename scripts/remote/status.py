"""What a volume says about its runs: status/<run>/status.json, files.json, output.log beside the run's own files.

Layout: data/ and outputs/ as in a working directory, status/<run>/, manifests/ (what an upload is to hold), cache/ptx/.
"""

import json
import time
from pathlib import Path
from typing import Any

# States: clearing (overwrite=true), running; then finished, failed (no retry helps), cancelled, or before the next
# attempt crashed (retried) and preempted (restarted).
ALIVE = 300.0  # seconds; a running attempt writes its status at least every minute


def folder(run: str) -> str:
    """Where a run's status stands on a volume."""
    return f"status/{run}"


def manifest_of(path: str) -> str:
    """Where the list of an uploaded path's files stands on a volume."""
    return f"manifests/{path.replace('%', '%25').replace('/', '%2F')}.json"


def read(path: Path) -> dict[str, Any]:
    """A JSON file's contents; {} where it is missing or cut short."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def write(path: Path, contents: dict[str, Any]) -> None:
    """Writes a JSON file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(contents, indent=1) + "\n")
    temporary.replace(path)


def now() -> float:
    """Seconds since 1970, to the millisecond."""
    return round(time.time(), 3)


def busy(found: dict[str, Any]) -> str:
    """Why a run of this status can't be started anew, or "" (preempted: it will be restarted)."""
    if found.get("state") in ("running", "clearing", "preempted") and now() - found["updated"] < ALIVE:
        return f"{found['name']} is running (call {found['call']}); wait, cancel it or choose another run_name."
    return ""


def made_here(folder: Path) -> bool:
    """Whether a run's folder on this machine is of a run that was started on it."""
    return (folder / "config.yaml").exists() and not (folder / "modal.json").exists()
