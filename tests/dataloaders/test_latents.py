"""Latents in shards: drawn anew each time, exact on resume, and every damage named."""

import json
from itertools import islice

import mlx.core as mx
import numpy as np
import pytest

from dataloaders.latents import Latents
from dataloaders.pipeline import Pipeline
from dataloaders.safetensors import mapped
from runtime.errors import UsageError

SHAPE = (2, 3, 4)
SIZES = (5, 1, 4)


def moments(count: int, seed: int, spread: str = "std", flip: bool = False, dtype=mx.float32) -> dict[str, mx.array]:
    """Means are far apart, so that each tells its row; deviations are 0.1, 0.2 where mirrored."""
    rng = np.random.default_rng(seed)
    made = {}
    for ending, std in (("", 0.1), ("_flip", 0.2)) if flip else (("", 0.1),):
        made[f"mean{ending}"] = mx.array(rng.normal(0, 50, (count, *SHAPE)), dtype)
        value = std if spread == "std" else 2 * np.log(std)
        made[f"{spread}{ending}"] = mx.full((count, *SHAPE), value, dtype)
    return {**made, "label": mx.array(rng.integers(0, 7, count), mx.int32)}


def put(root, part: str = "train", **options) -> dict[str, np.ndarray]:
    """Three shards; returns the arrays of all rows in order."""
    (root / part).mkdir(parents=True)
    shards = [moments(size, seed, **options) for seed, size in enumerate(SIZES)]
    for number, shard in enumerate(shards):
        mx.save_safetensors(str(root / part / f"{number:05}.safetensors"), shard)
    return {k: np.concatenate([np.array(s[k].astype(mx.float32)) for s in shards]) for k in shards[0]}


@pytest.mark.parametrize("spread", ["std", "logvar"])
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_samples_have_the_stored_mean_and_deviation(tmp_path, spread, dtype):
    stored = put(tmp_path, spread=spread, dtype=dtype)
    source = Latents(str(tmp_path), scale=0.5, classes=7)
    assert (len(source), source.shape, source.classes) == (10, SHAPE, 7)
    order = np.array([9, 0, 5, 4, 0])
    rng = np.random.default_rng(0)
    draws = [source.take(order, rng) for _ in range(200)]
    assert draws[0]["x"].dtype == np.float32 and draws[0]["label"].dtype == np.int32
    np.testing.assert_array_equal(draws[0]["label"], stored["label"][order])
    x = np.stack([d["x"] for d in draws])
    np.testing.assert_allclose(x.mean(0), 0.5 * stored["mean"][order], atol=0.5 * 0.1 * 5 / 200**0.5)
    np.testing.assert_allclose(x.std(0).mean(), 0.5 * 0.1, rtol=0.05)
    assert not np.array_equal(x[0, 1], x[0, 4])  # one row twice in a batch: two samples


def test_mirrored_latents_come_half_of_the_time_with_their_own_deviation(tmp_path):
    stored = put(tmp_path, flip=True)
    source = Latents(str(tmp_path), scale=1.0, classes=7)
    x = source.take(np.zeros(2000, np.int64), np.random.default_rng(0))["x"]
    plain, flipped = (np.abs(x - stored[name][0]).max(axis=(1, 2, 3)) < 2 for name in ("mean", "mean_flip"))
    assert (plain ^ flipped).all() and abs(plain.mean() - 0.5) < 0.06
    assert abs((x[plain] - stored["mean"][0]).std() - 0.1) < 0.01
    assert abs((x[flipped] - stored["mean_flip"][0]).std() - 0.2) < 0.02
    still = Latents(str(tmp_path), scale=1.0, classes=7, flip=False).take(np.zeros(99, int), np.random.default_rng(0))
    assert np.abs(still["x"] - stored["mean"][0]).max() < 2


def test_every_epoch_samples_anew_and_a_resumed_run_alike(tmp_path):
    put(tmp_path, flip=True)
    put(tmp_path, "eval")

    def batches(start: int):
        source, held = Latents(str(tmp_path), classes=7), Latents(str(tmp_path), "eval", classes=7, flip=False)
        pipeline = Pipeline(source, held, batch_size=5, seed=2)
        return pipeline, [b["x"] for b in islice(pipeline.batches("train", start), 6 - start)]

    pipeline, whole = batches(0)
    np.testing.assert_array_equal(batches(3)[1], whole[3:])
    epochs = np.concatenate(whole).reshape(3, -1)
    assert len({tuple(np.sort(epoch)) for epoch in epochs}) == 3
    for one, again in zip(pipeline.batches("eval"), pipeline.batches("eval"), strict=True):
        np.testing.assert_array_equal(one["x"], again["x"])


def test_the_fingerprint_follows_the_content(tmp_path):
    put(tmp_path / "a")
    put(tmp_path / "b")
    ours = [Latents(str(tmp_path / name), classes=7) for name in "ab"]
    assert ours[0].fingerprint() == ours[1].fingerprint() != Latents(str(tmp_path / "a"), scale=1.0).fingerprint()
    mx.save_safetensors(str(tmp_path / "b/train/00001.safetensors"), moments(1, 9))
    assert Latents(str(tmp_path / "b"), classes=7).fingerprint() != ours[0].fingerprint()


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def lose(*names):
    def change(path):
        mx.save_safetensors(str(path), {k: v for k, v in moments(4, 2).items() if k not in names})

    return change


def replace(**arrays):
    return lambda path: mx.save_safetensors(str(path), {**moments(4, 2), **arrays})


def head(header: bytes):
    return lambda path: path.write_bytes(len(header).to_bytes(8, "little") + header)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"00002.safetensors is cut short or damaged: it has \d+ bytes, its header needs \d+"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "is cut short or no safetensors file: it has 50 bytes"),
        (lambda path: path.write_bytes(b""), "it has 0 bytes"),
        (head(b"no json"), "is no safetensors file"),
        (head(json.dumps({"mean": {"dtype": "F8", "shape": [1], "data_offsets": [0, 0]}}).encode()), "is of type F8"),
        (head(json.dumps({"mean": {"dtype": "F32", "shape": [1], "data_offsets": [0, 0]}}).encode()), "has 0 bytes"),
        (lose("std"), "lacks std; it has label, mean"),
        (lose("label"), "lacks label; it has mean, std"),
        (replace(label=mx.array([0, 1, 2, 7])), "labels must lie in 0..6, got 0..7"),
        (replace(label=mx.array([0, -1, 2, 6])), "labels must lie in 0..6, got -1..6"),
        (replace(std=mx.zeros((4, 2, 3))), r"'std' is \(4, 2, 3\); needed \(4, 2, 3, 4\)"),
        (replace(mean=mx.zeros((4, 2, 3, 8)), std=mx.zeros((4, 2, 3, 8))), "differ in arrays or shapes"),
    ],
)
def test_damaged_shards_are_named(tmp_path, damage, message):
    put(tmp_path)
    damage(tmp_path / "train/00002.safetensors")
    with pytest.raises(UsageError, match=message):
        Latents(str(tmp_path), classes=7)


def test_latents_that_are_not_finite_are_named(tmp_path):
    put(tmp_path)
    broken = moments(4, 2)
    broken["mean"][3, 0, 0, 0] = float("nan")
    mx.save_safetensors(str(tmp_path / "train/00002.safetensors"), broken)
    source = Latents(str(tmp_path), classes=7)
    source.take(np.arange(9), np.random.default_rng(0))
    with pytest.raises(UsageError, match=r"00002.safetensors holds NaN or infinite latents \(row 9 of all\)"):
        source.take(np.arange(10), np.random.default_rng(0))


def test_missing_latents_and_wrong_channels_are_named(tmp_path):
    with pytest.raises(UsageError, match=f"no latents in {tmp_path}/train: write train shards .*make_latents.py"):
        Latents(str(tmp_path))
    put(tmp_path)
    with pytest.raises(UsageError, match=r"shape is \(2, 3, 8\), but train samples have shape \(2, 3, 4\)"):
        Pipeline(Latents(str(tmp_path), classes=7), batch_size=2, shape=(2, 3, 8))


def test_nothing_is_read_before_it_is_used(tmp_path):
    put(tmp_path)
    mean = mapped(tmp_path / "train/00000.safetensors")["mean"]
    assert isinstance(mean.array, np.memmap) and not mean.array.flags.writeable
