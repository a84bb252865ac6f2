"""N-grams: probabilities by hand, that they sum to 1, and bits."""

import math

import pytest

from evaluation.ngram import NGram
from runtime.errors import UsageError


def test_probabilities_by_hand():
    model = NGram("abaab", 2, "abc")
    # p_1(a) = (3 + 2/3) / (5 + 2); after "a" came b, a, b: p_2(b | a) = (2 + 2 p_1(b)) / (3 + 2)
    p1 = {"a": (3 + 2 / 3) / 7, "b": (2 + 2 / 3) / 7, "c": (2 / 3) / 7}
    assert model.probability("a", "") == pytest.approx(p1["a"])
    assert model.probability("b", "a") == pytest.approx((2 + 2 * p1["b"]) / 5)
    assert model.probability("c", "b") == pytest.approx((0 + 1 * p1["c"]) / 2)
    assert model.probability("b", "c") == pytest.approx(p1["b"])  # "c" was never seen
    assert model.probability("b", "ba") == model.probability("b", "a")
    bits = -(math.log2(p1["b"]) + math.log2((1 + p1["a"]) / 2)) / 2
    assert model.bits("ba") == pytest.approx(bits)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("history", ["", "a", "ba", "cab", "zz", "abcab"])
def test_they_sum_to_one(order, history):
    model = NGram("abcabacabbac", order, "abcz")
    assert sum(model.probability(c, history) for c in "abcz") == pytest.approx(1)


def test_a_longer_history_helps_where_there_is_one_to_know():
    text = "abcd" * 50
    bits = [NGram(text, order, "abcd").bits(text) for order in (1, 2)]
    assert bits[0] == pytest.approx(2, abs=0.01) and bits[1] < 0.15


def test_the_order_is_checked():
    with pytest.raises(UsageError, match="order must be at least 1, got 0"):
        NGram("ab", 0, "ab")
