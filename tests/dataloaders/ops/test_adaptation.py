import numpy as np
import pytest

from dataloaders.ops.adaptation import PixelDistributionAdaptation, pca
from runtime.errors import UsageError

RNG = np.random.default_rng(0)
DARK = np.clip(RNG.normal((40, 60, 90), (5, 10, 15), (40, 40, 3)), 0, 255).astype(np.uint8)
LIGHT = (180 + RNG.normal(0, 6, (30, 50, 1)) * [1, 2, 3] + RNG.normal(0, 1, (30, 50, 3))).astype(np.uint8)


def adapted(image, reference, seed=0, **options):
    op = PixelDistributionAdaptation("x", "x", [reference], **options)
    return op({"x": image}, {"mode": "train", "epoch": 0, "ds_id": "", "rng": np.random.default_rng(seed)})["x"]


def moments(image):
    pixels = image.reshape(-1, 3).astype(float)
    return pixels.mean(0), pixels.std(0), pixels.min(0), pixels.max(0)


def test_each_transform_matches_what_it_says():
    light = moments(LIGHT)
    mean, spread, *_ = moments(adapted(DARK, LIGHT, blend_ratio=(1, 1), transform_type="standard"))
    assert np.abs(mean - light[0]).max() < 0.3 and np.abs(spread - light[1]).max() < 0.3
    *_, low, high = moments(adapted(DARK, LIGHT, blend_ratio=(1, 1), transform_type="minmax"))
    assert np.array_equal(low, light[2]) and np.array_equal(high, light[3])
    turned = adapted(DARK, LIGHT, blend_ratio=(1, 1)).reshape(-1, 3).astype(float)
    assert np.abs(turned.mean(0) - light[0]).max() < 0.3
    values, axes = np.linalg.eigh(np.cov(turned, rowvar=False))
    wanted = np.linalg.eigh(np.cov(LIGHT.reshape(-1, 3), rowvar=False))[1][:, -1]
    assert abs(axes[:, -1] @ wanted) > 0.999
    own = np.linalg.eigvalsh(np.cov(DARK.reshape(-1, 3), rowvar=False))
    np.testing.assert_allclose(values, own, rtol=0.02)


def test_axes_are_turned_by_as_little_as_can_be():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3))
        small = np.linalg.qr(np.eye(3) + 0.02 * rng.normal(size=(3, 3)))[0]
        small = small * np.sign(np.diag(small))
        assert np.abs(pca(x, x @ small.T + 7) - 7 - (x - x.mean(0)) @ small.T - x.mean(0) @ small.T).max() < 1e-9, seed


def test_the_share_of_the_reference_is_drawn():
    means = [adapted(DARK, LIGHT, seed, transform_type="standard").mean() for seed in range(40)]
    shares = (np.array(means) - DARK.mean()) / (LIGHT.mean() - DARK.mean())
    assert 0.24 < shares.min() < 0.35 and 0.9 < shares.max() < 1.01
    assert np.array_equal(adapted(DARK, LIGHT, 3), adapted(DARK, LIGHT, 3))


def test_other_images():
    floats = adapted(DARK / np.float32(255), LIGHT / np.float32(255), blend_ratio=(1, 1))
    assert floats.dtype == np.float32 and abs(floats.mean() * 255 - LIGHT.mean()) < 0.5
    grey = adapted(DARK[..., :1], LIGHT[..., :1], blend_ratio=(1, 1))
    assert grey.shape == (40, 40, 1) and abs(grey.mean() - LIGHT[..., 0].mean()) < 0.5
    flat = adapted(np.full((4, 4, 3), 9, np.uint8), LIGHT, blend_ratio=(1, 1), transform_type="standard")
    assert np.abs(flat - LIGHT.reshape(-1, 3).mean(0)).max() <= 0.5
    with pytest.raises(UsageError, match="references like its images, got uint8"):
        adapted(DARK / 255, LIGHT)
    with pytest.raises(UsageError, match="pca, standard, minmax, got 'zca'"):
        adapted(DARK, LIGHT, transform_type="zca")
