"""Boxes and arrows as SVG: who reads what from whom."""

from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, GAP, RISE, MARGIN = 190, 46, 26, 58, 12  # of a box, between boxes and rows, around all; pixels
BULGE = 40  # how far arrows that pass boxes stand out
COLOURS = {"data": "#fdf1d6", "pipeline": "#e3f0df", "network": "#dfeaf7", "trace": "#efe6f5"}
ROW = 5  # boxes without arrows in a row


def rows_of(nodes: Sequence[Any]) -> list[list[int]]:
    """The places of the nodes by row: each below all that it reads; traces that read nothing come last."""
    depth: list[int] = []
    loose = []
    for place, node in enumerate(nodes):
        depth.append(1 + max((depth[source] for source, _ in node.sources), default=-1))
        if node.group == "trace" and not node.sources:
            loose.append(place)
    rows = [
        [i for i, d in enumerate(depth) if d == level and i not in loose] for level in range(max(depth, default=0) + 1)
    ]
    return [row for row in (*rows, *(loose[i : i + ROW] for i in range(0, len(loose), ROW))) if row]


def flowchart(nodes: Sequence[Any], label: str) -> str:
    """An SVG of nodes with `name`, `group`, `inputs`, `outputs`, `sources` [(place, key)]; label: its spoken name."""
    rows = rows_of(nodes)
    width = max(len(row) for row in rows) * (WIDTH + GAP) - GAP + 2 * (MARGIN + BULGE)
    height = len(rows) * (HEIGHT + RISE) - RISE + 2 * MARGIN
    corner = {}
    for level, row in enumerate(rows):
        left = (width - len(row) * (WIDTH + GAP) + GAP) / 2
        corner |= {place: (left + i * (WIDTH + GAP), MARGIN + level * (HEIGHT + RISE)) for i, place in enumerate(row)}
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
             f'height="{height:g}" role="img" aria-label="{escape(label)}" font-family="sans-serif">']  # fmt: skip
    for place, node in enumerate(nodes):
        keys: dict[int, list[str]] = {}
        for source, key in node.sources:
            keys.setdefault(source, []).append(key)
        x, y = corner[place]
        for i, source in enumerate(
            sorted(keys, key=lambda source: (y - corner[source][1] > HEIGHT + RISE, corner[source]))
        ):
            entry = x + WIDTH * (i + 1) / (len(keys) + 1)
            parts.append(_arrow(corner[source], (entry, y), ", ".join(keys[source])))
    parts += [_box(corner[place], node) for place, node in enumerate(nodes)]
    return "\n".join([*parts, "</svg>"])


def _box(corner: tuple[float, float], node: Any) -> str:
    x, y = corner
    reads, writes = ", ".join(node.inputs), ", ".join(node.outputs)
    keys = f"{reads} \u2192 {writes}" if reads or writes else ""
    return (
        f"<g><title>{escape(f'{node.name}: {keys}')}</title>"
        f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="5" fill="{COLOURS[node.group]}" '
        f'stroke="#777777"/>'
        f'<text x="{x + WIDTH / 2:g}" y="{y + 19:g}" text-anchor="middle" font-size="12">{escape(_fit(node.name, 29))}'
        f'</text><text x="{x + WIDTH / 2:g}" y="{y + 36:g}" text-anchor="middle" font-size="10" fill="#555555">'
        f"{escape(_fit(keys, 34))}</text></g>"
    )


def _arrow(start: tuple[float, float], end: tuple[float, float], keys: str) -> str:
    """From the box whose corner is `start` to the point `end`; past rows of boxes it goes at the right."""
    x0, y0, x1, y1 = start[0] + WIDTH / 2, start[1] + HEIGHT, *end
    bend, side = (y1 - y0) / 2, 0.0
    if y1 - y0 > RISE:
        x0 += WIDTH / 3
        side = max(x0, x1) + WIDTH / 6 + BULGE
    curve = f"C {side or x0:g} {y0 + bend:g}, {side or x1:g} {y1 - bend:g}, {x1:g} {y1 - 6:g}"
    return (
        f'<path d="M {x0:g} {y0:g} {curve}" fill="none" stroke="#999999"/>'
        f'<path d="M {x1 - 4:g} {y1 - 8:g} L {x1:g} {y1:g} L {x1 + 4:g} {y1 - 8:g} z" fill="#999999"/>'
        f'<text x="{x1 + 5:g}" y="{y1 - RISE / 4:g}" font-size="10" fill="#335577">'
        f"{escape(_fit(keys, 30))}</text>"
    )


def _fit(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "\u2026"
