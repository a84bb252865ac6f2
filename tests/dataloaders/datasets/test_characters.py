"""Windows of a text: what they hold, how many there are, what is refused."""

import numpy as np
import pytest

from dataloaders.datasets.characters import CharacterDataset, decode, encode, genesis
from dataloaders.pipeline import Pipeline
from runtime.errors import UsageError


@pytest.mark.parametrize(("stride", "starts"), [(1, [0, 1, 2, 3]), (3, [0, 3]), (4, [0])])
def test_windows_and_what_follows(stride, starts):
    text = "abcabca"
    data = CharacterDataset(text, 3, "abc", stride)
    found = [(decode(row["x"], "abc"), decode(row["y"], "abc")) for row in (data[i] for i in range(len(data)))]
    assert found == [(text[s : s + 3], text[s + 1 : s + 4]) for s in starts]
    with pytest.raises(IndexError):
        data[len(starts)]


def test_windows_side_by_side_hold_every_character_but_the_first_once():
    data = CharacterDataset("abcabcabcab", 5, "abc", stride=5)
    assert "".join(decode(data[i]["y"], "abc") for i in range(len(data))) == "bcabcabcab"
    batch = Pipeline(train_data=data, eval_data=data, batch_size=2).get_results("eval")
    assert batch["x"].shape == (2, 5) and batch["x"].dtype == np.int32


def test_the_text_that_comes_along():
    text = genesis()
    assert (len(text), len(set(text)), text.count("\n")) == (196_818, 60, 1533)
    assert text.startswith("In the beginning God created") and text.endswith("in a coffin in Egypt.\n")
    alphabet = "".join(sorted(set(text)))
    assert decode(encode(text[:500], alphabet), alphabet) == text[:500]


@pytest.mark.parametrize(("arguments", "words"), [
    (("abc", 3, "abc", 1), "more than context=3 characters, got stride=1 and 3 characters"),
    (("abc", 1, "abc", 0), "got stride=0"),
    (("abx", 1, "ab", 1), "the alphabet lacks 'x'"),
])  # fmt: skip
def test_mistakes_are_named(arguments, words):
    text, context, alphabet, stride = arguments
    with pytest.raises(UsageError, match=words):
        CharacterDataset(text, context, alphabet, stride)


def test_the_fingerprint_knows_text_and_windows():
    kinds = [
        ("abab", 1, "ab", 1),
        ("abba", 1, "ab", 1),
        ("abab", 2, "ab", 1),
        ("abab", 1, "ba", 1),
        ("abab", 1, "ab", 2),
    ]
    prints = {CharacterDataset(t, c, a, s).fingerprint() for t, c, a, s in kinds}
    assert len(prints) == 5
