"""The static site: built strictly, whole, and without anything fetched from elsewhere."""

import json
import re
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

ROOT = Path(__file__).resolve().parents[2]
FETCHED = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=["']?(https?:)?//""")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as `make docs` builds it, elsewhere; strict: a warning ends the build."""
    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder)))
    return folder


def test_every_page_is_in_the_site_and_in_its_menu(site):
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert {path.stem for path in site.glob("*.html")} == {*pages, "404"}
    start = (site / "index.html").read_text()
    assert pages <= set(re.findall(r'<a href="(?:\./)?(\w+)\.html" class="md-nav__link', start)) | {"index"}


def test_nothing_is_fetched_from_elsewhere(site):
    for path in site.rglob("*.html"):
        assert not FETCHED.search(path.read_text()), f"{path.name}: {FETCHED.search(path.read_text())}"
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(\W?(https?:)?//|@import", path.read_text()), path


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.stem)
def test_no_word_is_taken_for_a_tag_and_lost(path):
    text = re.sub(r"^```.*?^```|<!--.*?-->|`[^`\n]*`", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"<[a-zA-Z/][^\n]{0,20}", text)


def test_the_search_finds_words_of_the_pages(site):
    text = (site / "search" / "search_index.js").read_text()
    index = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert any("ten minutes" in entry["text"].lower() for entry in index["docs"])


def test_a_broken_link_ends_the_build(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[there](nowhere.md)")
    config = load_config(
        str(ROOT / "mkdocs.yml"), docs_dir=str(tmp_path / "docs"), site_dir=str(tmp_path / "s"), strict=True, nav=None
    )
    with pytest.raises(BaseException, match="strict mode"):
        build(config)
