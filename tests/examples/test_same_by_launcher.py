"""The scripts of examples/ and the experiments of the same name end with equal weights after a few steps."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import launcher
from examples import (
    cifar10_resnet9,
    cvae,
    dcgan,
    distillation,
    fashion_mnist_amp,
    fashion_mnist_siamese,
    fgsm,
    gpt,
    segmentation_unet,
)
from models.lenet import LeNet
from runtime.slots import snapshot
from scripts.compose import compose
from tests.test_launcher import TINY, idx_file
from training import checkpoint
from training.build import save_model

LINEAR = ["optimizer.schedule.total=3", "optimizer.schedule.warmup=0"]
CASES = {
    "cifar10_resnet9": (
        cifar10_resnet9,
        {"epochs": 1, "train_steps_per_epoch": 3, "batch_size": 10, "channels": 4, "seed": 2},
        ["batch_size=10", "model.channels=4", "seed=2", *LINEAR],
    ),
    "segmentation_unet": (
        segmentation_unet,
        {"epochs": 1, "batch_size": 4, "channels": 2, "size": 16, "count": 12, "wanted": "ring"},
        ["batch_size=4", "model.channels=2", "dataloaders.shape=[16,16,3]", "dataloaders.train_data.size=16",
         "dataloaders.train_data.count=12", "dataloaders.eval_data.count=1", "dataloaders.train_data.wanted=ring"],
    ),
    "fashion_mnist_siamese": (
        fashion_mnist_siamese,
        {"epochs": 1, "train_steps_per_epoch": 3, "batch_size": 4, "size": 65, "hidden": 8, "channels": 2, "trials": 3},
        ["batch_size=4", "model.shape=[65,65,1]", "model.hidden=8", "model.channels=2",
         "dataloaders.eval_data.trials=3"],
    ),
    "fashion_mnist_amp": (
        fashion_mnist_amp,
        {"epochs": 1, "batch_size": 13, "precision": "fp16"},
        ["batch_size=13", "precision=fp16", "traces.rate.lr_fn.cycle_length=3"],
    ),
    "fgsm": (fgsm, {"epochs": 1, "batch_size": 13, "seed": 3}, ["batch_size=13", "seed=3"]),
    "dcgan": (
        dcgan,
        {"epochs": 1, "batch_size": 10, "train_steps_per_epoch": 3, "channels": 16},
        ["batch_size=10", "network.models.generator.channels=16", "network.models.discriminator.channels=4"],
    ),
    "cvae": (cvae, {"epochs": 1, "batch_size": 13, "latent": 3},
             ["batch_size=13", "network.models.encoder.latent=3", "network.models.decoder.latent=3"]),
    "distillation": (
        distillation,
        {"teacher": "teacher.safetensors", "samples": 24, "epochs": 1, "batch_size": 8, "share": 0.5},
        ["batch_size=8", "network.models.teacher.file=teacher.safetensors", "dataloaders.train_data.fraction=24",
         "network.ops.blend.fn.share=0.5"],
    ),
    "gpt": (
        gpt,
        {"steps": 3, "batch_size": 4, "context": 16, "hidden": 16, "depth": 1},
        ["batch_size=4", "dataloaders.train_data.context=16", "model.hidden=16", "model.depth=1",
         "traces.warmup.warmup_steps=1"],
    ),
}  # fmt: skip


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Random images in data/, in the folder the test runs in."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 30)):
        pixels = rng.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        idx_file(Path(f"data/fashion_mnist/{part}-images-idx3-ubyte.gz"), pixels)
        idx_file(Path(f"data/fashion_mnist/{part}-labels-idx1-ubyte.gz"), np.arange(count, dtype=np.uint8) % 10)
    kinds = "airplane automobile bird cat deer dog frog horse ship truck".split()
    for number in range(50):
        file = Path(f"data/cifar10/{'train' if number < 30 else 'test'}/{kinds[number % 10]}/{number}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file)
    save_model(LeNet(), "teacher")
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_example_and_experiment_train_the_same_weights(name, images):
    module, arguments, changes = CASES[name]
    overrides = [*(text for text in TINY if not text.startswith("compile")), f"experiment={name}", "max_steps=3",
                 "eval_every=3s", *changes]  # fmt: skip
    summary = launcher.train(compose(overrides), images / "r", overrides)
    estimator = module.get_estimator(log_steps=0, **arguments)
    found = estimator.fit()
    assert summary.steps == estimator.step == 3
    trained = checkpoint.load(checkpoint.find(images / "r"))[0]
    trained_paths = {path for paths in estimator.train_step.leaves.values() for path in paths}
    start = snapshot(module.get_estimator(log_steps=0, **arguments).network.models)
    arrays = snapshot(estimator.network.models)
    for path, array in arrays.items():
        np.testing.assert_array_equal(np.array(trained[f"models.{path}"]), np.array(array), err_msg=path)
    assert (
        sum(not np.array_equal(np.array(a), np.array(start[path])) for path, a in arrays.items())
        > len(trained_paths) / 2
    )
    shared = {k: v for k, v in found.latest.items() if k.startswith("eval/") and k in summary.latest}
    assert shared or "eval" not in estimator.pipeline.sources
    assert all(summary.latest[name] == pytest.approx(value) for name, value in shared.items())
