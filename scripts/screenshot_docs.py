"""Pictures of the documentation's site: start, a world's page and a search, as a desktop and as a phone shows them.

usage: python scripts/screenshot_docs.py out=docs/images [site=site]       (first: make docs)

  out=FOLDER   gets site_<page>_<width>.png
  site=site    the built site; the pages are opened as files
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

from runtime.errors import UsageError
from scripts.arguments import command, parse
from scripts.screenshots import screenshot

PAGES = {"start": "index.html", "flows": "flows.html", "search": "index.html?q=resume"}
SIZES = ((1280, 900), (400, 800))  # pixels


@dataclass
class Settings:
    """The keys of the command line."""

    out: str = "???"
    site: str = "site"


def work(arguments: list[str]) -> None:
    """Draws every page in every size; UsageError where the site isn't built."""
    given, _ = parse(arguments, Settings)
    site = Path(given.site).resolve()
    if not (site / "index.html").is_file():
        raise UsageError(f"there is no site in {site}; build it first: make docs.")
    for name, page in PAGES.items():
        for width, height in SIZES:
            print(screenshot(f"{site.as_uri()}/{page}", Path(given.out) / f"site_{name}_{width}.png", width, height))


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
