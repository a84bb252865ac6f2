"""The encoder-decoder transformer against FastEstimator's translator in PyTorch; padding; the order of norms."""

import mlx.core as mx
import numpy as np
import pytest

from models.seq2seq import Transformer
from models.transformer import DecoderBlock
from runtime.errors import UsageError
from tests.models.parity import FIXTURES, compare, filled, given, numbers

SOURCE = mx.array([[3, 1, 4, 1, 5, 0, 0], [10, 9, 7, 7, 2, 8, 1]])
TARGET = mx.array([[2, 7, 1, 12, 0], [5, 6, 11, 3, 9]])


def small():
    return filled(Transformer(11, 13, 16, 2, 4, 24, context=12))


def test_equals_fastestimators():
    compare("seq", small()(SOURCE, TARGET))
    assert numbers(Transformer(29794, 30522)) == FIXTURES["seq"]["count"]


def test_padding_and_later_tokens_change_nothing_before_them():
    model = small()
    out = np.array(model(SOURCE, TARGET))
    shorter = np.array(model(SOURCE[:1, :5], TARGET[:1, :4]))
    np.testing.assert_allclose(shorter[0], out[0, :4], atol=1e-5 * np.abs(out).max())


def test_a_decoder_block_with_the_norm_first_starts_from_its_input():
    block, x, memory = DecoderBlock(8, 2, 16, norm_first=True), given("x", (2, 3, 8)), given("m", (2, 4, 8))
    for layer in (block.attention.leave, block.cross.leave, block.perceptron.narrow):
        layer.weight = mx.zeros_like(layer.weight)
    assert mx.array_equal(block(x, memory), x).item()  # every branch is closed
    after = DecoderBlock(8, 2, 16)(x, memory)
    np.testing.assert_allclose(np.array(after.mean(axis=-1)), 0, atol=1e-5)  # here the last thing is a norm


def test_too_many_tokens_and_odd_widths_are_refused():
    with pytest.raises(UsageError, match="context=12"):
        small()(mx.ones((1, 13), mx.int32), TARGET[:1])
    with pytest.raises(UsageError, match="got 15"):
        Transformer(11, 13, hidden=15)
