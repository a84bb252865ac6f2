"""Features as clean-fid computes them, with random weights in a stub of Inception; no FID is claimed from those."""

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from evaluation.fid import FeatureDistance, feature_frechet
from evaluation.inception import FILE, CleanInception
from runtime.errors import UsageError
from runtime.instantiate import build
from tests.evaluation.fakes import FakePipeline, fake_run

ROUGH = np.random.default_rng(0).uniform(-1.1, 1.1, (6, 20, 24, 3)).astype(np.float32)


def stub(folder, seed=0):
    """A TorchScript file with Inception's interface: `layers` gives 2048 features."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("cleanfid.inception_torchscript")
    torch.manual_seed(seed)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 7, 13), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(8))
    whole = torch.nn.Module()
    whole.layers = layers
    torch.jit.script(whole).save(str(folder / FILE))
    return layers


def test_features_are_clean_fids_own(tmp_path):
    torch, layers = pytest.importorskip("torch"), stub(tmp_path)
    got = CleanInception(str(tmp_path), batch=4, device="cpu")(ROUGH)
    assert got.shape == (6, 2048) and got.dtype == np.float32
    for image, features in zip(
        ROUGH, got, strict=True
    ):  # saved as a picture, resized by PIL in float, no second rounding
        saved = np.asarray(Image.fromarray(np.clip(np.round((image + 1) * 127.5), 0, 255).astype(np.uint8)))
        planes = [Image.fromarray(saved[..., i].astype(np.float32), mode="F") for i in range(3)]
        large = [np.asarray(plane.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255) for plane in planes]
        with torch.no_grad():
            expected = layers((torch.tensor(np.stack(large))[None] - 128) / 128).flatten().numpy()
        np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    gray = CleanInception(str(tmp_path / FILE), device="cpu")
    np.testing.assert_array_equal(gray(ROUGH[..., :1]), gray(ROUGH[..., :1].repeat(3, axis=-1)))


def test_distance_equals_clean_fids_function(tmp_path):
    clean = pytest.importorskip("cleanfid.fid")
    stub(tmp_path)
    network = CleanInception(str(tmp_path), device="cpu")
    pool = [network(np.random.default_rng(i).uniform(-1, 1, (40, 8, 8, 3)))[:, :30].astype(float) for i in (1, 2)]
    moments = [part for features in pool for part in (features.mean(0), np.cov(features, rowvar=False))]
    assert feature_frechet(*pool) == pytest.approx(clean.frechet_distance(*moments), rel=1e-6)


def test_other_weights_never_go_by_the_name_of_fid(tmp_path, monkeypatch):
    stub(tmp_path)
    config = OmegaConf.load(Path(__file__).parents[2] / "configs" / "evaluation" / "fid.yaml")
    config.features.weights, config.features.device = str(tmp_path), "cpu"
    config.count, config.cache, config.subset_size, config.subsets = 12, False, 12, 2
    evaluator = build(config)
    scores = evaluator(fake_run(FakePipeline((8, 8, 3))))
    digits = evaluator.network.version[:6]
    assert list(scores) == [f"{m}_clean_weights_{digits}_12{end}" for end in ("", "_floor") for m in ("fd", "kid")]
    monkeypatch.setattr("evaluation.inception.SHA256", evaluator.network.version)
    published = FeatureDistance(CleanInception(str(tmp_path), device="cpu"), count=50_000)
    assert published.names() == ["fid_clean_50k", "kid_clean_50k"]


def test_missing_and_foreign_weights_cost_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="weights=PATH, a local copy of https"):
        CleanInception(None)
    with pytest.raises(UsageError, match="no Inception weights .*nowhere.pt"):
        CleanInception(str(tmp_path / "nowhere.pt"))
    stub(tmp_path)
    with pytest.raises(UsageError, match=r"\(n, H, W, 1 or 3\), got shape \(6, 20, 24, 2\)"):
        CleanInception(str(tmp_path), device="cpu")(ROUGH[..., :2])
    (tmp_path / FILE).write_bytes(b"no weights")
    with pytest.raises(UsageError, match="no TorchScript file of an Inception network"):
        CleanInception(str(tmp_path))
