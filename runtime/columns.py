"""Tables of text on the terminal."""


def columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows of text in columns of equal width, two spaces between."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(one, widths, strict=True)).rstrip() for one in rows]
