"""The one exception a user's mistake raises: a sentence with the value got and the value needed."""

from difflib import get_close_matches


class UsageError(Exception):
    """A mistake in what the user gave (override, file, shape); commands print it and exit with status 2."""


def closest(word: str, valid: list[str], limit: int = 3) -> str:
    """Names the valid words nearest to `word`, for the end of an error sentence."""
    near = get_close_matches(word, valid, n=limit, cutoff=0.5) or sorted(valid)
    return ", ".join(near)
