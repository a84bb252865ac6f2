"""A run's report as one HTML page: no scripts, no other files, readable without a network."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from visualizers.canvas import write
from visualizers.curves import as_series, read_metrics
from visualizers.flowchart import flowchart
from visualizers.logs import compare_runs

STYLE = """body{font:15px/1.45 sans-serif;color:#222;max-width:1150px;margin:2em auto;padding:0 1em}
h1{font-size:1.7em}h2{margin-top:2em;border-bottom:1px solid #ccc}h3{margin-bottom:.3em}
table{border-collapse:collapse;margin:.5em 0}td,th{border:1px solid #ddd;padding:.2em .6em;text-align:left}
th{background:#f3f3f3}td{font:13px monospace;vertical-align:top;overflow-wrap:anywhere}
pre{background:#f7f7f7;padding:.8em;overflow:auto}svg{max-width:100%;height:auto}
summary{cursor:pointer}nav a{margin-right:1em}"""


def write_report(report: Mapping[str, Any], path: Path | str) -> Path:
    """Writes what `Traceability` gathered.

    report: title; facts, a dictionary of texts; graphs, {mode: nodes}; config, YAML text or ""; objects, {section:
    [(name, {setting: text})]}; data, {mode: [(name, facts, {key: (type, shape, different values)})]}; models, [(name,
    facts, [(path, shape, type, numbers, trained)])]; sittings, [{...}]; environment, a dictionary; metrics, a
    metrics.jsonl or None; history, rows of logged values.
    """
    sections = {
        "Result": table(["", ""], report["facts"].items()),
        "Curves": curves(report),
        "Graph": "".join(
            f"<h3>{escape(mode)}</h3>{flowchart(nodes, mode)}" for mode, nodes in report["graphs"].items()
        ),
        "Configuration": config(report),
        "Data": "".join(data(mode, sets) for mode, sets in report["data"].items()),
        "Models": "".join(model(*facts) for facts in report["models"]),
        "Environment": environment(report),
    }
    links = "".join(f'<a href="#{name.lower()}">{name}</a>' for name in sections)
    body = "".join(f'<h2 id="{name.lower()}">{name}</h2>\n{content}\n' for name, content in sections.items())
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(report["title"])}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(report['title'])}</h1><nav>{links}</nav>\n{body}</body></html>\n"
    )
    return write(path, lambda temporary: temporary.write_text(page, "utf-8"))


def table(head: Sequence[str], rows: Any) -> str:
    """Rows of texts as a table; "" where there are none."""
    lines = ["<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows]
    titles = "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>" if any(head) else ""
    return f"<table>{titles}{''.join(lines)}</table>" if lines else ""


def curves(report: Mapping[str, Any]) -> str:
    """The last value of every number, and its curve where it was logged more than once."""
    series = read_metrics(report["metrics"]) if report["metrics"] else {}
    for name, own in as_series(report["history"]).items():  # the record's last row may be open still
        joined = dict(
            sorted({**dict(zip(*series.get(name, ((), ())), strict=True)), **dict(zip(*own, strict=True))}.items())
        )
        series[name] = np.array(list(joined)), np.array(list(joined.values()))
    last = [(name, steps[-1], f"{values[-1]:.6g}") for name, (steps, values) in series.items()]
    drawn = [name for name, (steps, _) in series.items() if len(steps) > 1]
    if not drawn:
        return table(["metric", "step", "value"], last) or "<p>Nothing was logged.</p>"
    with tempfile.TemporaryDirectory() as folder:
        path = compare_runs({"run": series}, Path(folder) / "curves.svg", drawn, legend=False)
        text = path.read_text("utf-8")
    drawing = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return drawing + table(["metric", "last step", "value"], last)


def config(report: Mapping[str, Any]) -> str:
    """The composed configuration where there is one, and every object's settings."""
    parts = [f"<details open><summary>config.yaml</summary><pre>{escape(report['config'])}</pre></details>"]
    parts = parts if report["config"] else []
    for section, objects in report["objects"].items():
        parts.append(f"<h3>{escape(section)}</h3>")
        rows = [(name, "\n".join(f"{key} = {text}" for key, text in own.items())) for name, own in objects]
        parts.append(table(["", "settings"], rows).replace("\n", "<br>"))
    return "".join(parts)


def data(mode: str, sets: Sequence[tuple[str, str, Mapping[str, Sequence[str]]]]) -> str:
    """The data sets of a mode, a table each."""
    return f"<h3>{escape(mode)}</h3>" + "".join(
        f"<p>{escape(name)}: {escape(facts)}</p>"
        + table(["key", "type", "shape", "different values"], [(key, *own) for key, own in keys.items()])
        for name, facts, keys in sets
    )


def model(name: str, facts: str, leaves: Sequence[Sequence[Any]]) -> str:
    """A model and its leaves."""
    return (
        f"<h3>{escape(name)}</h3><p>{escape(facts)}</p><details><summary>{len(leaves)} arrays</summary>"
        + table(["array", "shape", "type", "numbers", "trained"], leaves)
        + "</details>"
    )


def environment(report: Mapping[str, Any]) -> str:
    """Versions and machine, and every sitting of the run."""
    sittings = report["sittings"]
    rows = [[str(sitting.get(name, "")) for name in sittings[0]] for sitting in sittings]
    return table(["", ""], report["environment"].items()) + "<h3>Sittings</h3>" + table(list(sittings[0]), rows)
