"""Model options whose data no data option gives: each composes, builds, and is trained for two steps as named."""

import numpy as np
import pytest
from omegaconf import OmegaConf

import launcher
from scripts.compose import compose
from tests.test_launcher import TINY
from training import checkpoint

MODEL, LOSS, UPDATE = "ops.model_op.ModelOp", "ops.losses.cross_entropy.CrossEntropy", "training.update.UpdateOp"
MSE = "ops.losses.regression.MeanSquaredError"
SMALL = ["hidden=8", "depth=2", "heads=2"]


def op(target, **arguments):
    return {"_target_": target, **arguments}


def updates(*names):
    return [op(UPDATE, model=name, loss_name="loss", optimizer="adam") for name in names]


# models by name with their sizes; data keys with shapes (int: tokens below 5); ops but for the updates
CASES = {
    "gpt": (
        {"gpt": [*SMALL, "vocabulary=5", "context=6"]},
        {"x": (6, int), "y": (6, int)},
        [
            op(MODEL, model="gpt", inputs="x", outputs="p"),
            op(LOSS, inputs=["p", "y"], outputs="loss", from_logits=True),
        ],
    ),
    "transformer": (
        {"transformer": [*SMALL, "width=8", "sources=5", "targets=5"]},
        {"x": (6, int), "before": (4, int), "y": (4, int)},
        [
            op(MODEL, model="transformer", inputs=["x", "before"], outputs="p"),
            op(LOSS, inputs=["p", "y"], outputs="loss", from_logits=True),
        ],
    ),
    "cvae": (
        {"cvae_encoder": [], "cvae_decoder": []},
        {"x": ((12, 8, 1), float)},
        [
            op(MODEL, model="cvae_encoder", inputs="x", outputs=["mean", "spread"]),
            op(MODEL, model="cvae_decoder", inputs="mean", outputs="p"),
            op(MSE, inputs=["p", "x"], outputs="loss"),
        ],
    ),
    "dcgan": (
        {"dcgan_generator": ["noise=3", "channels=8"], "dcgan_discriminator": ["channels=2"]},
        {"z": (3, float), "y": ((1,), float)},
        [
            op(MODEL, model="dcgan_generator", inputs="z", outputs="made"),
            op(MODEL, model="dcgan_discriminator", inputs="made", outputs="p"),
            op(LOSS, inputs=["p", "y"], outputs="loss", from_logits=True),
        ],
    ),
}


def columns(kinds):
    rng = np.random.default_rng(0)

    def drawn(shape, kind):
        rows = (6, *np.atleast_1d(shape))
        return rng.integers(1, 5, rows) if kind is int else rng.random(rows, np.float32)

    return {key: drawn(*how).tolist() for key, how in kinds.items()}


@pytest.mark.parametrize("name", CASES)
def test_it_composes_builds_and_every_model_moves(name, tmp_path):
    models, kinds, ops = CASES[name]
    told = [*TINY, "network=classifier", "model=null", *(f"+model@network.models.{model}={model}" for model in models)]
    told += [f"network.models.{model}.{size}" for model, sizes in models.items() for size in sizes]
    config = compose([*told, "dataloaders.shape=[12,8,1]"])
    data = {"_target_": "dataloaders.datasets.rows.NumpyDataset", "data": columns(kinds)}
    pipeline = {"_target_": "dataloaders.pipeline.Pipeline", "train_data": data, "batch_size": 3}
    config["dataloaders"] = OmegaConf.create(pipeline)
    config["network"] = OmegaConf.create({"models": config.network.models, "ops": [*ops, *updates(*models)]})
    assert launcher.train(config, tmp_path / "r").steps == 2
    config["max_steps"], config["optimizer"] = 1, None
    launcher.train(config, tmp_path / "one")
    one, two = (checkpoint.load(checkpoint.find(tmp_path / run))[0] for run in ("one", "r"))
    for model in models:
        names = [name for name in two if name.startswith(f"models.{model}.")]
        moved = [name for name in names if np.abs(np.array(two[name]) - np.array(one[name])).max() > 1e-6]
        assert len(moved) > 2, model
