"""The dashboard is up while pictures are taken, behind a proxy too, and gone afterwards; mistakes start none."""

import sys
import urllib.error
import urllib.request

import pytest

from scripts import screenshot_dashboard
from training.tracking import Tracker

PROJECT = "screenshot-dashboard-test"


@pytest.fixture(scope="module", autouse=True)
def run(tmp_path_factory):
    tracker = Tracker(tmp_path_factory.mktemp("run"), PROJECT, "first")
    tracker.start()
    tracker.log(1, {"loss": 1.0})
    tracker.finish()


def command(capsys, *arguments):
    return screenshot_dashboard.main([f"project={PROJECT}", *arguments]), capsys.readouterr().err


def test_each_page_is_served_until_it_is_drawn(tmp_path, monkeypatch, capsys):
    drawn, direct = [], urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def draw(url, out, width, height, settle):
        drawn.append((url, out.name, width, height, direct.open(url, timeout=10).read().decode()))

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(screenshot_dashboard, "screenshot", draw)
    monkeypatch.setattr(screenshot_dashboard, "browser", lambda: "chromium")
    assert command(capsys, "runs=first", "metrics=a|b", "pages=curves,pictures", f"out={tmp_path}", "width=600")[0] == 0
    assert [(name, width, height) for _, name, width, height, _ in drawn] == [
        ("dashboard_curves.png", 600, 800),
        ("dashboard_pictures.png", 600, 800),
    ]
    url, *_, page = drawn[0]
    query = f"/metrics?project={PROJECT}&runs=first&metric_filter=a%7Cb&smoothing=0&hide_empty_tabs=true"
    assert url.endswith(query) and "<html" in page
    with pytest.raises(urllib.error.URLError):
        direct.open(url, timeout=10)


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["project=screenshot-dashboard-tast"], "no project 'screenshot-dashboard-tast'"),
        (["runs=first,frist"], "has no run 'frist'; nearest: first"),
        (["pages=curve"], "has no page 'curve'; nearest: curves"),
        (["width=0"], "width must be at least 1, got 0"),
    ],
)
def test_mistakes_are_told_before_anything_starts(monkeypatch, capsys, arguments, told):
    monkeypatch.setattr(screenshot_dashboard, "browser", lambda: "chromium")
    monkeypatch.setattr(screenshot_dashboard, "dashboard", None)
    status, error = command(capsys, *arguments)
    assert status == 2 and told in error


def test_a_dashboard_that_does_not_start_is_told_with_its_last_words(tmp_path, monkeypatch, capsys):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho no free port >&2\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(screenshot_dashboard, "browser", lambda: "chromium")
    status, error = command(capsys)
    assert status == 2 and "did not start: no free port" in error
