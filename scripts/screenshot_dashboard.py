"""Takes pictures of trackio's dashboard by a browser without a window: runs, curves, pictures, the machine, alerts.

usage: python scripts/screenshot_dashboard.py project=mlx-lab [key=value ...]

  project=mlx-lab      the project, of TRACKIO_DIR if that is set
  runs=first,second    runs by name; left out: all
  metrics=loss         of the curves: those whose names fit this regular expression; left out: all
  pages=runs,curves,pictures,machine,alerts    which
  out=docs/images      folder of dashboard_<page>.png
  width=1280 height=800    pixels

Needs Chromium. The dashboard is trackio's own, on a free port of this machine, until the pictures are taken.
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

from omegaconf import MISSING

from runtime.errors import UsageError, closest
from scripts.arguments import at_least, command, parse
from scripts.screenshots import browser, screenshot
from scripts.trackio_delete import Store

PAGES = {
    "runs": "runs",
    "curves": "metrics",
    "pictures": "media",
    "machine": "system",
    "alerts": "reports",
}  # trackio's
SLOW = 60.0  # seconds until the dashboard must be there


@dataclass
class Settings:
    """The keys of the command line."""

    project: str = MISSING
    runs: str | None = None
    metrics: str | None = None
    pages: str = ",".join(PAGES)
    out: str = "docs/images"
    width: int = 1280
    height: int = 800


@contextlib.contextmanager
def dashboard(project: str) -> Iterator[str]:
    """Within: trackio shows a project at the address given; UsageError if it does not start."""
    local = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"]))  # trackio asks itself, by a proxy if set
    environment = os.environ | {"NO_PROXY": local, "no_proxy": local, "BROWSER": "true", "PYTHONUNBUFFERED": "1"}
    call = [sys.executable, "-m", "trackio.cli", "show", "--project", project]
    child = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    late = threading.Timer(SLOW, child.kill)
    late.start()
    try:
        assert child.stdout is not None
        told = []
        for line in child.stdout:
            told.append(line.strip())
            if "launched at: " in line:
                yield line.split("launched at: ")[1].split("?")[0].split("\x1b")[0].strip().rstrip("/")
                return
        raise UsageError(f"trackio's dashboard did not start: {' '.join(told[-3:]) or 'no message'}.")
    finally:
        late.cancel()
        child.kill()
        child.wait()


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


def work(arguments: list[str]) -> None:
    """Starts the dashboard and takes each picture."""
    given, _ = parse(arguments, Settings)
    at_least(1, width=given.width, height=given.height)
    browser()  # before the dashboard is started
    stored = sorted({name for run in Store(given.project).runs() for name in run.names})
    for text, known, kind in ((given.runs, stored, "run"), (given.pages, list(PAGES), "page")):
        if lost := [name for name in (text or "").split(",") if name and name not in known]:
            raise UsageError(f"{given.project} has no {kind} {lost[0]!r}; nearest: {closest(lost[0], known)}.")
    told = {"project": given.project, "runs": given.runs, "metric_filter": given.metrics, "smoothing": "0",
            "hide_empty_tabs": "true"}  # fmt: skip
    query = urlencode({key: value for key, value in told.items() if value})
    with dashboard(given.project) as address:
        for name in filter(None, given.pages.split(",")):
            url = f"{address}/{PAGES[name]}?{query}"
            print(screenshot(url, Path(given.out) / f"dashboard_{name}.png", given.width, given.height, settle=15))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
