"""Latents made by the script: what the encoder says, in shards that the loader reads."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import launcher
from dataloaders.latents import Latents
from dataloaders.shapes import Shapes
from runtime.errors import UsageError
from scripts.compose import compose
from scripts.make_latents import Settings, main, work, write_part


class Halver(nn.Module):
    """Means of 2 x 2 pixels, and a deviation that tells the left half from the right."""

    def encode(self, x):
        count, height, width, channels = x.shape
        mean = x.reshape(count, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
        return mean, mx.broadcast_to(0.01 + mx.arange(width // 2)[:, None] / 1000, mean.shape)


SOURCE = Shapes(count=23, size=16)


def halved(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), 8, 2, 8, 2, 3).mean(axis=(2, 4))


def settings(**given) -> Settings:
    return Settings(rows=10, batch=4, dtype="float32", **given)


def test_shards_hold_what_the_encoder_says(tmp_path):
    write_part(Halver().encode, SOURCE, tmp_path / "train", settings())
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == [f"0000{n}.safetensors" for n in range(3)]
    images = SOURCE.take(np.arange(23), np.random.default_rng(0))
    plain, mirrored = halved(images["x"]), halved(images["x"][:, :, ::-1])
    source = Latents(str(tmp_path), scale=2.0, classes=5, flip=False)
    batch = source.take(np.arange(23), np.random.default_rng(0))
    assert np.abs(batch["x"] / 2 - plain).max() < 6 * 0.017 and batch["label"].tolist() == images["label"].tolist()
    stored = [dict(shard) for shard in source.shards]
    assert [len(shard["mean"]) for shard in stored] == [10, 10, 3]
    for name, expected in (("mean", plain), ("mean_flip", mirrored)):
        rows = np.concatenate([shard[name].rows(np.arange(len(shard[name]))) for shard in stored])
        np.testing.assert_allclose(rows, expected, atol=1e-6)
    std = stored[2]["std_flip"].rows(np.arange(3))
    np.testing.assert_allclose(std[:, 0, :, 0], np.tile(0.01 + np.arange(8) / 1000, (3, 1)), atol=1e-7)


def test_shards_that_are_there_are_kept_and_half_precision_is_half_the_size(tmp_path):
    write_part(Halver().encode, SOURCE, tmp_path / "train", settings())
    files = sorted((tmp_path / "train").iterdir())
    before = [(path.stat().st_mtime_ns, path.stat().st_size) for path in files]
    files[1].unlink()
    half = Settings(rows=10, batch=4, flip=False)
    write_part(Halver().encode, SOURCE, tmp_path / "train", half)
    after = [(path.stat().st_mtime_ns, path.stat().st_size) for path in files]
    assert (after[0], after[2]) == (before[0], before[2]) and 3.5 < before[1][1] / after[1][1] < 4.1


def test_latents_that_are_not_finite_leave_no_shard(tmp_path):
    def broken(x):
        return x * 1e9, x

    with pytest.raises(UsageError, match=r"the mean of rows 0..3 is not finite in float16; try dtype=float32"):
        write_part(broken, SOURCE, tmp_path / "train", Settings(rows=10, batch=4))
    assert list((tmp_path / "train").iterdir()) == []


def test_an_autoencoder_s_latents_can_be_trained_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = ["dataloaders.train_data.count=30", "dataloaders.eval_data.count=20", "dataloaders.train_data.size=16"]
    small = ["model.channels=[8,8]", "rows=25", "out=latents", "device=cpu"]
    work(["model=autoencoder", "dataloaders=shapes", *counts, *small])
    data = [
        "dataloaders=imagenet_latents", "dataloaders.train_data.root=latents", "dataloaders.train_data.classes=5",
        "batch_size=10", "dataloaders.train_data.scale=1", "dataloaders.shape=[8,8,4]", "model=cnn", "model.channels=4",
    ]  # fmt: skip
    quick = [
        "epochs=1",
        "trackio.enabled=false",
        "device=cpu",
        "traces.evaluation.pictures=null",
        "evaluation=none",
        "compile=false",
    ]
    overrides = ["run_name=t", *data, *quick]
    summary = launcher.train(compose(overrides), tmp_path / "t", overrides)
    assert summary.steps == 3 and np.isfinite(summary.latest["eval/loss"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out=x"], "give either model=... or checkpoint=..."),
        (["model=mlp", "checkpoint=x"], "give either model=... or checkpoint=..."),
        (["model=mlp", "dtype=int8"], "dtype must be one of float16, float32, got 'int8'"),
        (["model=mlp", "rows=0"], "rows must be at least 1, got 0"),
        (["model=mlp", "dataloaders=shapes"], r"MLP has no encode\(x\)"),
        (["model=mlp", "dataloaders=shape"], "dataloaders=shape does not exist; nearest: shapes"),
        (["model=mlp", "dataloaders=shapes", "dataloaders.train_data.sice=3"], "there is no key 'sice'"),
    ],
)
def test_mistakes_are_named(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        work([*arguments, "device=cpu"])
    assert main([*arguments, "device=cpu"]) == 2 and not (tmp_path / "data").exists()
