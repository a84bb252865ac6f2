"""TRM: its parameter counts, the layouts of the token mixer, and that only the last cycle has gradients."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from models import gate, residual_norm
from models.recursive import SwiGLU, inner_width, truncated_normal
from models.trm import TRM
from runtime.errors import UsageError
from tests.models import gate_formulas, residual_norm_formulas

SMALL = {"vocabulary": 7, "length": 5, "hidden": 8, "heads": 2, "high": 2, "low": 2, "prefix": 1}
MIXERS = pytest.mark.parametrize("mixer", ["attention", "mlp"])


def make(**changes):
    mx.random.seed(0)
    model = TRM(**{**SMALL, **changes})
    model.q_weight = mx.random.normal(model.q_weight.shape)
    return model


def leaves(tree):
    return dict(tree_flatten(tree))


@pytest.mark.parametrize("mixer, length, vocabulary, count", [
    ("mlp", 81, 11, 2 * (3 * 97 * 512 + 3 * 512 * 1536) + 2 * 11 * 512 + 2 * 512 + 2),  # 5.03M: Sudoku
    ("attention", 900, 12, 2 * (4 * 512 * 512 + 3 * 512 * 1536) + 2 * 12 * 512 + 2 * 512 + 2),  # 6.83M: ARC
])  # fmt: skip
def test_parameter_counts(mixer, length, vocabulary, count):
    model = TRM(vocabulary, length, mixer=mixer)  # lazy: the weights are never computed
    assert sum(a.size for a in leaves(model.trainable_parameters()).values()) == count
    assert not {"y_start", "z_start"} & set(leaves(model.trainable_parameters()))
    assert {"y_start", "z_start"} < set(leaves(model.parameters()))


def test_widths_are_rounded_up_to_multiples_of_256():
    assert [inner_width(n, 4.0) for n in (512, 97, 81, 96)] == [1536, 512, 256, 256]


def test_truncated_normal_has_the_deviation_asked_for():
    draws = np.array(truncated_normal((200_000,), 0.3))
    assert draws.std() == pytest.approx(0.3, rel=0.01)
    assert np.abs(draws).max() < 0.3 * 2.3


def test_the_mixer_along_tokens_is_the_mixer_of_the_transposed():
    mixer, x = SwiGLU(5, 4.0), mx.random.normal((3, 5, 6))
    np.testing.assert_allclose(mixer.along_tokens(x), mixer(x.swapaxes(1, 2)).swapaxes(1, 2), atol=1e-5)


@MIXERS
def test_gradients_are_those_of_the_last_cycle(mixer):
    model, x = make(mixer=mixer), mx.array([[1, 2, 3, 4, 5], [0, 6, 1, 1, 2]])
    y, z = (mx.random.normal((2, 6, 8)) for _ in range(2))

    def value(parameters):
        model.update(parameters)
        _, _, logits, q = model(x, y, z)
        return logits.square().sum() + q.square().sum()

    held = model.trainable_parameters()
    found = leaves(mx.grad(value)(held))
    model.update(held)
    e = model.embed(x, None)
    before = [mx.array(np.array(a)) for a in model.cycle(y, z, e)]
    one = make(mixer=mixer, high=1)

    def last(parameters):
        one.update(parameters)
        _, _, logits, q = one(x, *before)
        return logits.square().sum() + q.square().sum()

    expected = leaves(mx.grad(last)(held))
    for path, gradient in expected.items():
        np.testing.assert_allclose(found[path], gradient, rtol=1e-3, atol=1e-4 * float(mx.abs(gradient).max()))
        assert np.abs(np.array(gradient)).max() > 0, path


@MIXERS
def test_a_step_is_the_same_by_the_kernels_formulas(mixer, monkeypatch):
    model, x = make(mixer=mixer), mx.array([[1, 2, 3, 4, 5], [0, 6, 1, 1, 2]])
    y, z = (mx.random.normal((2, 6, 8)) for _ in range(2))
    held = model.trainable_parameters()

    def value(parameters):
        model.update(parameters)
        _, _, logits, q = model(x, y, z)
        return logits.square().sum() + q.square().sum()

    right = leaves(mx.compile(mx.grad(value))(held))
    for module, formulas in ((gate, gate_formulas), (residual_norm, residual_norm_formulas)):
        monkeypatch.setattr(module, "MODE", "fused")
        monkeypatch.setattr(module, "KERNELS", formulas)
    for path, found in leaves(mx.compile(mx.grad(value))(held)).items():
        np.testing.assert_allclose(found, right[path], atol=1e-4 * float(mx.abs(right[path]).max()), err_msg=path)


@MIXERS
def test_states_that_come_out_carry_no_gradient(mixer):
    model, x = make(mixer=mixer), mx.array([[1, 2, 3, 4, 5]])
    gradient = mx.grad(lambda y: sum(a.sum() for a in model(x, y, y)[:2]))(mx.random.normal((1, 6, 8)))
    assert not np.array(gradient).any()


@MIXERS
def test_bf16_is_near_float32(mixer):
    model, x = make(mixer=mixer, high=1, low=1), mx.array([[1, 2, 3, 4, 5]])
    y, z = model.start(1)
    exact = model(x, y, z)
    model.set_dtype(mx.bfloat16)
    rough = model(x, y, z)
    assert rough[2].dtype == mx.bfloat16 and rough[3].dtype == mx.float32
    for a, b in zip(exact, rough, strict=True):
        np.testing.assert_allclose(a, b.astype(mx.float32), atol=0.15)


def test_the_puzzle_embedding_fills_the_first_places():
    model = make(prefix=2)
    rows = mx.random.normal((1, 11))  # fewer than two places of 8 hold
    e = model.embed(mx.array([[1, 2, 3, 4, 5]]), rows)
    flat = np.array(e[0, :2]).flatten() / np.sqrt(8)
    np.testing.assert_allclose(flat[:11], rows[0], rtol=1e-6)
    assert not flat[11:].any() and not np.array(model.embed(mx.array([[1, 2, 3, 4, 5]]), None))[:, :2].any()


@pytest.mark.parametrize("options, word", [
    ({"low": 0}, "low"), ({"mixer": "conv"}, "mixer"), ({"heads": 3}, "heads"),
])  # fmt: skip
def test_options_that_do_not_fit(options, word):
    with pytest.raises(UsageError, match=word):
        make(**options)


def test_puzzles_of_another_size_are_refused():
    with pytest.raises(UsageError, match=r"\(B, 5\), got \(2, 9\)"):
        model = make()
        model(mx.zeros((2, 9), mx.int32), *model.start(2))
