"""GPT against torch.nn and FastEstimator; GPT-2's count; the cache; drawing tokens."""

import mlx.core as mx
import numpy as np
import pytest

from models.gpt import GPT
from runtime.errors import UsageError
from tests.models.parity import FIXTURES, compare, filled, numbers

TOKENS = mx.array([[3, 1, 4, 1, 5, 9, 2, 6], [10, 0, 7, 7, 2, 8, 1, 3]])
THEIRS = {"qkv_bias": False, "activation": "relu", "tied": False}


def small(**options):
    return filled(GPT(11, 9, 16, 2, 4, 2, **options))


def test_counts():
    before = mx.get_active_memory()
    assert numbers(GPT()) == 124_439_808  # GPT-2 small
    assert numbers(GPT(50257, 512, 1024, 6, 16, **THEIRS)) == FIXTURES["gpt_fe"]["count"]
    assert mx.get_active_memory() - before < 20e6  # lazy: no weight is ever computed


def test_equals_torchs_layers_and_fastestimators():
    compare("gpt", small()(TOKENS))
    compare("gpt_fe", small(**THEIRS)(TOKENS))


def test_the_cache_gives_what_reading_everything_gives():
    model = small()
    whole, (first, past) = model(TOKENS), model.extend(TOKENS[:, :3])
    middle, past = model.extend(TOKENS[:, 3:6], past)
    last, _ = model.extend(TOKENS[:, 6:], past)
    got = mx.concatenate([first, middle, last], axis=1)
    np.testing.assert_allclose(np.array(got), np.array(whole), atol=1e-5 * mx.abs(whole).max().item())


def test_generates_the_likeliest_and_goes_on_past_its_context():
    model = small()
    found = mx.stack(list(model.generate(TOKENS[:, :4], 3)), axis=1)
    text = TOKENS[:, :4]
    for _ in range(3):
        text = mx.concatenate([text, model(text)[:, -1].argmax(axis=-1)[:, None].astype(text.dtype)], axis=1)
    assert mx.array_equal(found, text[:, 4:]).item()
    assert len(list(model.generate(TOKENS, 12))) == 12  # 8 and 12 are more than the context of 9


def test_draws_by_the_key_from_the_likeliest():
    model, key = small(), mx.random.key(0)
    one, again = (mx.stack(list(model.generate(TOKENS, 5, key))) for _ in range(2))
    assert mx.array_equal(one, again).item()
    greedy, top = (mx.stack(list(model.generate(TOKENS, 5, *more))) for more in ((), (key, 9.0, 1)))
    assert mx.array_equal(greedy, top).item()


def test_dropout_draws_anew_for_every_key():
    model = small(dropout=0.3).train()
    plain, one, again, other = (model(TOKENS, key=k and mx.random.key(k)) for k in (None, 1, 1, 2))
    assert mx.array_equal(one, again).item() and not mx.allclose(one, other).item()
    later = mx.concatenate([TOKENS[:, :5], TOKENS[:, 5:] * 0], axis=1)  # the explicit path is causal too
    assert mx.allclose(model(later, key=mx.random.key(1))[:, :5], one[:, :5], atol=1e-5).item()
    assert not mx.allclose(plain, one).item()


def test_too_many_tokens_are_refused():
    with pytest.raises(UsageError, match="context=9"):
        small()(mx.zeros((1, 10), mx.int32))
