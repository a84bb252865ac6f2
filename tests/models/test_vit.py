"""Vision transformers: published counts; torchvision's and FastEstimator's numbers."""

import mlx.core as mx
import pytest

from models.vit import ViT, ViTBase, ViTLarge, ViTSmall, ViTTiny
from runtime.errors import UsageError
from tests.models.parity import FIXTURES, compare, filled, given, numbers

SMALL = {"shape": (12, 8, 3), "classes": 5, "patch": 4, "hidden": 16, "depth": 2, "heads": 4, "ratio": 2}
COUNTS = {ViTTiny: 5_717_416, ViTSmall: 22_050_664, ViTBase: 86_567_656, ViTLarge: 304_326_632}


@pytest.mark.parametrize("kind", COUNTS)
def test_counts_equal_the_published_ones(kind):
    before = mx.get_active_memory()
    assert numbers(kind()) == COUNTS[kind]
    assert mx.get_active_memory() - before < 20e6  # lazy: no weight is ever computed


def test_equals_torchvisions():
    compare("vit", filled(ViT(**SMALL))(given("x", (2, 12, 8, 3))))


def test_equals_fastestimators():
    model = filled(ViT(**SMALL, norm_first=False, patch_bias=False))
    compare("vit_fe", model(given("x", (2, 12, 8, 3))))
    theirs = ViT((32, 32, 3), 100, 4, 256, 6, 8, 2, norm_first=False, patch_bias=False)
    assert numbers(theirs) == FIXTURES["vit_fe"]["count"]


def test_dropout_follows_the_key_and_training():
    model, x = filled(ViT(**SMALL, dropout=0.3), training=True), given("x", (2, 12, 8, 3))
    plain, one, again, other = (model(x, key=k and mx.random.key(k)) for k in (None, 1, 1, 2))
    assert mx.array_equal(one, again).item() and not mx.allclose(one, other).item()
    assert not mx.allclose(plain, one).item()
    model.train(False)
    assert mx.array_equal(model(x, key=mx.random.key(1)), plain).item()


@pytest.mark.parametrize(("changes", "said"), [({"patch": 5}, "patch=5"), ({"heads": 3}, "heads=3")])
def test_sizes_that_do_not_divide(changes, said):
    with pytest.raises(UsageError, match=said):
        ViT(**SMALL | changes)
