from collections import defaultdict

import numpy as np
import pytest

from dataloaders.ops.text import PadSequence, Tokenize, WordtoId
from dataloaders.pipeline import Pipeline
from runtime.errors import UsageError


class Lines:
    def __init__(self, *lines):
        self.lines = lines

    def __len__(self):
        return len(self.lines)

    def __getitem__(self, i):
        return {"x": self.lines[i]}


WORDS = {"the": 1, "cat": 2, "sat": 3}


def test_text_becomes_rows_of_numbers():
    ops = [Tokenize("x", "x", to_lower_case=True), WordtoId(WORDS, "x", "x"), PadSequence("x", "x", 4)]
    data = Lines("The  cat\n", "the cat sat the cat", "sat")
    batch = Pipeline(eval_data=data, batch_size=3, ops=ops).get_results("eval")
    assert batch["x"].tolist() == [[1, 2, 0, 0], [1, 2, 3, 1], [3, 0, 0, 0]]
    assert np.issubdtype(batch["x"].dtype, np.integer)


def test_functions_and_default_dictionaries_stand_in_for_a_dictionary():
    assert Tokenize("x", "x", tokenize_fn=list, to_lower_case=False).one("aB") == ["a", "B"]
    assert WordtoId(lambda words: [len(w) for w in words], "x", "x").one(["a", "bcd"]).tolist() == [1, 3]
    assert WordtoId(defaultdict(lambda: 9, WORDS), "x", "x").one(["cat", "dog"]).tolist() == [2, 9]


def test_padding():
    assert PadSequence("x", "x", 3, value=-1, append=False).one([5]).tolist() == [-1, -1, 5]
    assert PadSequence("x", "x", 2, append=False).one([5, 6, 7]).tolist() == [5, 6]
    assert PadSequence("x", "x", 3, value="<pad>").one(["a"]).tolist() == ["a", "<pad>", "<pad>"]
    rows = PadSequence("x", "x", 2, value=0.5).one(np.ones((1, 2), np.float32))
    assert rows.tolist() == [[1, 1], [0.5, 0.5]] and rows.dtype == np.float32
    short = np.array([1, 2], np.int32)
    assert {PadSequence("x", "x", n).one(short).dtype for n in (1, 2, 3)} == {np.dtype(np.int32)}


def test_errors_name_values():
    wrong: dict = 3  # type: ignore[assignment]
    for run, message in (
        (lambda: WordtoId(wrong, "x", "x"), "needs a dictionary or a function, got int"),
        (lambda: WordtoId(WORDS, "x", "x").one(["dog"]), "dictionary of 3 words lacks 'dog'"),
        (lambda: PadSequence("x", "x", 0), "at least 1, got 0"),
    ):
        with pytest.raises(UsageError, match=message):
            run()
