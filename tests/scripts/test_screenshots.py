"""A page's picture shows what the page's script drew, at the size asked for."""

import shutil

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UsageError
from scripts import screenshots
from scripts.screenshots import screenshot

PAGE = """<meta name="viewport" content="width=device-width"><body style="margin: 0; background: rgb(10, 200, 30)">
<div id="box" style="height: 40px"></div><script>setTimeout(() => {
  box.style.width = innerWidth / 2 + "px"; box.style.background = "rgb(250, 0, 120)"
}, 3000)</script>"""


@pytest.mark.skipif(not any(map(shutil.which, screenshots.BROWSERS)), reason="no Chromium")
@pytest.mark.parametrize("width", [640, 400])
def test_a_script_that_draws_after_seconds_is_in_the_picture(tmp_path, width):
    (tmp_path / "page.html").write_text(PAGE)
    out = screenshot((tmp_path / "page.html").as_uri(), tmp_path / "new" / "page.png", width, 300)
    pixels = np.asarray(Image.open(out).convert("RGB"))
    want = np.full((300, width, 3), (10, 200, 30))
    want[:40, : width // 2] = (250, 0, 120)
    np.testing.assert_array_equal(pixels, want)


def test_a_machine_without_chromium_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match="no Chromium.*apt-get install chromium"):
        screenshot("file:///nothing.html", tmp_path / "page.png")


def test_a_browser_that_draws_nothing_is_told_with_its_last_words(tmp_path, monkeypatch):
    program = tmp_path / "browser"
    program.write_text("#!/bin/sh\necho first >&2\necho last words >&2\n")
    program.chmod(0o755)
    monkeypatch.setattr(screenshots, "browser", lambda: str(program))
    with pytest.raises(UsageError, match="drew nothing of http://x: last words"):
        screenshot("http://x", tmp_path / "page.png")
