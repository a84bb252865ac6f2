"""Windows of a text, character by character, for language models; and a text that travels with the repository."""

import gzip
from pathlib import Path
from typing import Literal

import numpy as np

from dataloaders.source import digest
from runtime.errors import UsageError

GENESIS = Path(__file__).parents[1] / "genesis.txt.gz"
HELD_OUT = 20_000  # characters at a text's end


def genesis() -> str:
    """The book of Genesis in the King James Version (1611), 196,818 characters of 60 kinds, one verse a line.

    In the public domain (in the United Kingdom printing it is the Crown's right). Text of Debian's package
    bible-kjv-text 4.38, without numbers of chapters and verses.
    """
    return gzip.decompress(GENESIS.read_bytes()).decode()


class CharacterDataset:
    """Windows of a text: "x" (context,) int32, characters by their place in `alphabet`, and "y", what follows each.

    stride: characters from one window's start to the next's; `context` for windows side by side. Raises UsageError for
    a text of fewer than context + 1 characters or with one that the alphabet lacks.
    """

    def __init__(self, text: str, context: int, alphabet: str, stride: int = 1):
        if min(context, stride) < 1 or len(text) <= context:
            raise UsageError(
                f"CharacterDataset needs context and stride from 1 on and more than context={context} characters, got "
                f"stride={stride} and {len(text)} characters."
            )
        self.context, self.stride, self.alphabet = context, stride, alphabet
        self.tokens = encode(text, alphabet)

    def __len__(self) -> int:
        return (len(self.tokens) - 1 - self.context) // self.stride + 1

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        window = self.tokens[index * self.stride :][: self.context + 1]
        return {"x": window[:-1], "y": window[1:]}

    def fingerprint(self) -> str:
        """A short hash of text and windows."""
        return digest("characters", self.alphabet, self.context, self.stride, self.tokens.tobytes())


def windows(part: Literal["train", "eval"], context: int, text: str | None = None) -> CharacterDataset:
    """Windows of a text (None: Genesis) by its own alphabet: "train" at every place, "eval" side by side.

    The last 20,000 characters are held out for "eval".
    """
    text = genesis() if text is None else text
    alphabet = "".join(sorted(set(text)))
    if part == "train":
        return CharacterDataset(text[:-HELD_OUT], context, alphabet)
    return CharacterDataset(text[-HELD_OUT:], context, alphabet, stride=context)


def encode(text: str, alphabet: str) -> np.ndarray:
    """Each character's place in the alphabet, (len(text),) int32; UsageError for one that is not in it."""
    places = {character: place for place, character in enumerate(alphabet)}
    unknown = sorted(set(text) - set(places))
    if unknown:
        raise UsageError(f"the alphabet lacks {unknown[0]!r}, which the text has; it has {alphabet!r}.")
    return np.array([places[character] for character in text], np.int32)


def decode(tokens: np.ndarray, alphabet: str) -> str:
    """The text of places (n,) in the alphabet."""
    return "".join(alphabet[int(token)] for token in tokens)
