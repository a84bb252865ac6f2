"""Which pages of the site are drawn, and what is said where there is none."""

from pathlib import Path

from scripts import screenshot_docs

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_page_is_drawn_in_both_widths_and_exists(tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(screenshot_docs, "screenshot", lambda url, out, *size: drawn.append((url, out, size)) or out)
    (tmp_path / "index.html").write_text("")
    assert screenshot_docs.main([f"site={tmp_path}", f"out={tmp_path}/pictures"]) == 0
    assert (f"{tmp_path.as_uri()}/flows.html", tmp_path / "pictures" / "site_flows_400.png", (400, 800)) in drawn
    assert len({out for _, out, _ in drawn}) == len(drawn) == 2 * len(screenshot_docs.PAGES)
    assert capsys.readouterr().out.splitlines() == [str(out) for _, out, _ in drawn]
    for url, _, _ in drawn:
        assert (DOCS / Path(url.partition("?")[0]).name).with_suffix(".md").is_file()


def test_without_a_site_it_says_how_to_build_one(tmp_path, capsys):
    assert screenshot_docs.main([f"site={tmp_path}", f"out={tmp_path}"]) == 2
    assert "make docs" in capsys.readouterr().err
