import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from runtime.errors import UsageError
from runtime.instantiate import build, locate

FILES = sorted((Path(__file__).parents[2] / "configs" / "dataloaders").glob("*.yaml"))
OWN_DATA = {  # need files that not every machine has
    "mnist", "fashion_mnist", "cifar10", "cifar10_augmented", "image_folder", "celeba", "imagenet", "imagenet_latents",
    "sudoku", "sudoku4", "sudoku6", "maze", "maze15", "arc",
}  # fmt: skip
BUILT_IN = {
    "kmeans", "eight_gaussians", "moons", "checkerboard", "two_spirals", "pairs", "gaussians_to_moons", "digits",
    "shapes", "eis",
}  # fmt: skip
GIVEN = {"test_data", "rank", "world"}  # arguments that code alone gives
HERE = [file for file in FILES if file.stem in OWN_DATA | BUILT_IN]


def load(file: Path):
    return OmegaConf.create({"seed": 3, "dataloaders": OmegaConf.load(file)}).dataloaders


def targets(node):
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def test_every_config_is_covered():
    assert {file.stem for file in HERE} == OWN_DATA | BUILT_IN


@pytest.mark.parametrize("file", HERE, ids=lambda f: f.stem)
def test_configs_name_every_argument(file):
    for node in targets(OmegaConf.to_container(load(file), resolve=True)):
        parameters = set(inspect.signature(locate(node["_target_"])).parameters)
        assert set(node) - {"_target_"} == parameters - GIVEN, node["_target_"]


@pytest.mark.parametrize("file", HERE, ids=lambda f: f.stem)
def test_configs_build_or_say_which_data_are_missing(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an empty data folder
    if file.stem in OWN_DATA - {"fashion_mnist"}:
        with pytest.raises(UsageError, match=f"data/{file.stem.removesuffix('_augmented')}"):
            build(load(file))
    elif file.stem in BUILT_IN:
        pipeline = build(load(file))
        for mode in ("train", "eval"):
            iterator = pipeline.batches(mode)
            batch = next(iterator)
            iterator.close()
            assert batch["x"].shape == (pipeline.batch_size, *pipeline.shape)
            assert ("label" in batch) == (pipeline.classes > 0)


def test_models_can_refer_to_shape_and_classes(tmp_path):
    for part in ("train", "eval"):
        for kind in "ab":
            (tmp_path / part / kind).mkdir(parents=True)
            Image.new("RGB", (9, 7)).save(tmp_path / part / kind / "0.png")
    config = OmegaConf.create(
        {
            "seed": 0,
            "dataloaders": OmegaConf.load(next(file for file in FILES if file.stem == "image_folder")),
            "model": {"shape": "${dataloaders.shape}", "classes": "${dataloaders.classes}"},
        }
    )
    config.dataloaders.train_data.update(root=str(tmp_path), size=6, channels=1)
    config.dataloaders.batch_size = 2
    assert OmegaConf.to_container(config.model, resolve=True) == {"shape": [6, 6, 1], "classes": 2}
    assert build(config.dataloaders).shape == (6, 6, 1)


def test_an_override_of_the_training_data_reaches_the_evaluation_data():
    config = load(next(file for file in FILES if file.stem == "moons"))
    config.train_data.noise, config.train_data.labelled, config.classes = 0.0, True, 2
    pipeline = build(config)
    assert pipeline.source("eval").spread == 0.0 and pipeline.source("eval").classes == 2
