"""Text to numbers: words, their numbers, sequences of one length."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dataloaders.ops.each import EachOp
from dataloaders.ops.numpy_op import Names
from runtime.errors import UsageError


class Tokenize(EachOp):
    """A string as a list of strings: by `tokenize_fn`, or else at white space; must stand before `Batch`."""

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None,
                 tokenize_fn: Callable[[str], list[str]] | None = None, to_lower_case: bool = False):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        self.tokenize_fn, self.to_lower_case = tokenize_fn, to_lower_case

    def one(self, value: Any) -> list[str]:
        """The words."""
        words = self.tokenize_fn(str(value)) if self.tokenize_fn else str(value).split()
        return [word.lower() for word in words] if self.to_lower_case else list(words)


class WordtoId(EachOp):
    """Words (N,) as integers (N,): by a dictionary, or by a function that takes the whole list."""

    def __init__(self, mapping: Mapping[str, int] | Callable[[list[str]], Sequence[int]], inputs: Names,
                 outputs: Names, mode: Names = None, ds_id: Names = None):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        if not callable(mapping) and not isinstance(mapping, Mapping):
            raise UsageError(f"WordtoId needs a dictionary or a function, got {type(mapping).__name__}.")
        self.mapping = mapping

    def one(self, value: Any) -> np.ndarray:
        """(N,) int64; UsageError for a word that the dictionary lacks."""
        words = list(value)
        if isinstance(self.mapping, Mapping):
            try:
                return np.array([self.mapping[word] for word in words], np.int64)
            except KeyError as error:
                raise UsageError(
                    f"WordtoId's dictionary of {len(self.mapping)} words lacks {error}; needed: every word, a "
                    "defaultdict, or a function."
                ) from error
        return np.asarray(self.mapping(words), np.int64)


class PadSequence(EachOp):
    """Sequences (N, ...) of length `max_len`: shorter ones are filled up with `value`, longer ones lose their end.

    append: fill up at the end, else at the start.
    """

    def __init__(self, inputs: Names, outputs: Names, max_len: int, value: str | float = 0, append: bool = True,
                 mode: Names = None, ds_id: Names = None):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        if max_len < 1:
            raise UsageError(f"PadSequence: max_len must be at least 1, got {max_len}.")
        self.max_len, self.value, self.append = max_len, value, append

    def one(self, value: Any) -> np.ndarray:
        """(max_len, ...)."""
        sequence = np.asarray(value)[: self.max_len]
        fill = np.array(self.value) if isinstance(self.value, str) else self.value
        kind = np.result_type(sequence, fill)  # whatever the length, so that batches have one type
        filler = np.full((self.max_len - len(sequence), *sequence.shape[1:]), fill, kind)
        return np.concatenate([sequence, filler] if self.append else [filler, sequence], dtype=kind)
