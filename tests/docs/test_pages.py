"""Every page of docs/ does what it says: its commands and scripts run, or compose where they are long."""

import sys
from pathlib import Path

import pytest

import scripts.arguments
import scripts.compose
from tests.docs import pages

ROOT = pages.ROOT
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """A folder that looks like the repository; modules written in it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    pages.prepare(tmp_path)
    for module in (scripts.compose, scripts.arguments):
        monkeypatch.setattr(module, "CONFIGS", tmp_path / "configs")
    for function in (scripts.compose.compose, scripts.compose._compose):
        monkeypatch.setattr(function, "__defaults__", (tmp_path / "configs",))
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("name", PAGES)
def test_the_page_does_what_it_says(name, workshop):
    pages.run_page(ROOT / "docs" / name)


def page(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("```bash\npython launcher.py run_name=x model.hiden=3\n```\n", "page.md, line 1.*status 2.*nearest: hidden"),
        ("<!-- test: compose -->\n```bash\npython launcher.py run_name=x modle=mlp\n```\n", "nearest: model"),
        ("<!-- test: compose -->\n```bash\npython scripts/sample.py checkpiont=x\n```\n", "nearest: checkpoint"),
        ("<!-- test: compose -->\n```bash\npython scripts/smaple.py\n```\n", "there is no scripts/smaple.py"),
        ("<!-- test: compose -->\n```bash\npython benchmarks/kill_resume.py --klls 3\n```\n", "unrecognized"),
        ("<!-- test: slowly -->\n```bash\npython launcher.py --help\n```\n", "unknown words.*slowly"),
        ("<!-- test: fails -->\n```bash\npython launcher.py --help\n```\n```text\nx\n```\n", "status 0"),
        ("```bash\npip install -e '.[cpuu]'\n```\n", "the extras are"),
        ("```bash\nmake dosc\n```\n", "the Makefile has"),
        ("```bash\npytest tests/no_such.py\n```\n", "no such test"),
        ("```bash\nrm -r outputs\n```\n", "can't check"),
    ],
)
def test_a_page_that_is_wrong_fails(text, why, workshop):
    with pytest.raises(AssertionError, match=f"(?s){why}"):
        pages.run_page(page(workshop, text))


def test_a_wrong_message_and_a_python_block_that_raises_fail(workshop):
    mistake = "<!-- test: fails -->\n```bash\npython launcher.py run_name=x model.hiden=3\n```\n```text\n{}\n```\n"
    pages.run_page(page(workshop, mistake.format("there is no key 'hiden'")))
    with pytest.raises(AssertionError, match="not\nthere is no key 'hidden'"):
        pages.run_page(page(workshop, mistake.format("there is no key 'hidden'")))
    with pytest.raises(ZeroDivisionError):
        pages.run_page(page(workshop, "```python\n1 / 0\n```\n"))
