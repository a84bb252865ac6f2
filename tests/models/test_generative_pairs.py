"""The VAE's, DCGAN's and siamese halves against FastEstimator's in PyTorch; drawing, dropping, symmetry."""

import mlx.core as mx
import numpy as np
import pytest

from models.cvae import Decoder, Encoder, reparametrise
from models.dcgan import Discriminator, Generator
from models.siamese import SiameseEncoder, SiameseNetwork
from runtime.errors import UsageError
from tests.models.parity import FIXTURES, compare, filled, given, numbers

CASES = {
    "encoder": (Encoder, "x", (3, 28, 28, 1)),
    "decoder": (Decoder, "z", (3, 2)),
    "generator": (Generator, "z", (3, 100)),
    "discriminator": (Discriminator, "x", (3, 28, 28, 1)),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_fastestimators(case):
    kind, name, shape = CASES[case]
    model, x = filled(kind()), given(name, shape)
    out = model(x)
    compare(case, mx.concatenate(out, axis=-1) if isinstance(out, tuple) else out)
    assert numbers(model) == FIXTURES[case]["count"]
    if "trained" in FIXTURES[case]:
        compare(case, model.train()(x), key="trained", tolerance=2e-4)


def test_siamese_counts_and_is_symmetric():
    before = mx.get_active_memory()
    assert numbers(SiameseNetwork()) == FIXTURES["siamese"]["count"]
    assert mx.get_active_memory() - before < 20e6  # lazy: no weight is ever computed
    model = filled(SiameseNetwork((70, 65, 1), 8, 4))
    a, b = given("a", (2, 70, 65, 1)), given("b", (2, 70, 65, 1))
    assert model(a, b).shape == (2, 1) and mx.array_equal(model(a, b), model(b, a)).item()
    model.logits = True
    assert mx.allclose(model(a, a), model.head.bias).item() and not mx.allclose(model(a, b), model(a, a)).item()


@pytest.mark.slow
def test_siamese_equals_fastestimators():
    model = filled(SiameseNetwork(logits=True))
    compare("siamese", model(given("a", (2, 105, 105, 1)), given("b", (2, 105, 105, 1))), tolerance=1e-3)


def test_reparametrised_numbers_have_the_mean_and_variance():
    mean, logvar = mx.broadcast_to(mx.array([1.0, -2.0]), (20000, 2)), mx.broadcast_to(mx.array([0.0, 2.0]), (20000, 2))
    z = np.array(reparametrise(mean, logvar, mx.random.key(0)))
    np.testing.assert_allclose(z.mean(0), [1, -2], atol=0.08)
    np.testing.assert_allclose(z.var(0), [1, np.exp(2)], rtol=0.05)


def test_the_discriminator_drops_whole_channels():
    model, x = filled(Discriminator(), training=True), given("x", (3, 28, 28, 1))
    plain, one, again = (model(x, key=k and mx.random.key(k)) for k in (None, 1, 1))
    assert mx.array_equal(one, again).item() and not mx.allclose(one, plain).item()
    dropped = np.array(model.dropout(mx.ones((64, 2, 2, 50)), mx.random.key(0)))
    assert (dropped == dropped[:, :1, :1]).all() and set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs((dropped == 0).mean() - 0.3) < 0.03


@pytest.mark.parametrize(
    ("kind", "shape"), [(Generator, (30, 28, 1)), (Discriminator, (28, 30, 1)), (Decoder, (30, 28, 1)),
                        (Encoder, (6, 9, 1)), (SiameseEncoder, (64, 65, 1))],
)  # fmt: skip
def test_wrong_sizes_are_refused(kind, shape):
    with pytest.raises(UsageError, match=f"got {shape[0]} x {shape[1]}"):
        kind(shape)
