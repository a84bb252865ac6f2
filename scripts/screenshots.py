"""Pictures of web pages by a Chromium without a window."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from runtime.errors import UsageError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
NARROWEST = 500  # pixels, of a Chromium window


def browser() -> str:
    """The path of Chromium or Chrome; UsageError where there is none."""
    found = next((path for name in (*BROWSERS, MAC) if (path := shutil.which(name))), None)
    if found is None:
        raise UsageError(
            f"no Chromium on this machine (looked for {', '.join(BROWSERS)} on PATH and {MAC}); "
            "install one, on Debian by: apt-get install chromium."
        )
    return found


def screenshot(url: str, out: Path, width: int = 1280, height: int = 900, settle: float = 10.0) -> Path:
    """Draws what a browser shows of a page, width x height pixels, as a PNG of 256 colours; returns `out`.

    settle: seconds that the page's own clock runs, which stands still while requests are open; scripts and charts of a
    page are done by then, in less time of ours. UsageError without Chromium and for a page that can't be drawn.
    """
    from PIL import Image

    program = browser()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        drawn, frame = Path(folder) / "page.png", Path(folder) / "frame.html"
        if width < NARROWEST:  # a page as wide as a phone, inside of a window that can't be
            style = f"border: 0; width: {width}px; height: {height}px"
            frame.write_text(f'<body style="margin: 0"><iframe style="{style}" src="{url}"></iframe>')
        page = frame.as_uri() if frame.exists() else url
        command = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={folder}",
            f"--window-size={max(width, NARROWEST)},{height}", f"--virtual-time-budget={round(1e3 * settle)}",
            f"--screenshot={drawn}", page,
        ]  # fmt: skip
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=60 + 10 * settle).stderr
        except subprocess.TimeoutExpired as error:
            raise UsageError(f"{program} took more than {error.timeout:.0f} s to draw {url}.") from error
        if not drawn.exists():
            raise UsageError(f"{program} drew nothing of {url}: {(told.strip().splitlines() or ['no message'])[-1]}")
        with Image.open(drawn) as picture:
            picture.convert("RGB").crop((0, 0, width, height)).quantize(256, dither=Image.Dither.NONE).save(out)
    return out
