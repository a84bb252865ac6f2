"""Every config of the solver and loss groups builds and lists all arguments of its class under their own names."""

import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from runtime.instantiate import build, locate

GROUPS = Path(__file__).parents[2] / "configs"
FILES = sorted([*GROUPS.glob("solver/*.yaml"), *GROUPS.glob("loss/*.yaml")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_builds_with_every_argument(file):
    node = OmegaConf.load(file)
    target = locate(node["_target_"])
    assert list(inspect.signature(target).parameters) == [key for key in node if key != "_target_"]
    assert isinstance(build(node), target)


@pytest.mark.parametrize("file", [f for f in FILES if f.parent.name == "solver"], ids=lambda file: file.stem)
def test_solver_configs_hold_the_defaults(file):
    node = OmegaConf.load(file)
    defaults = {name: p.default for name, p in inspect.signature(locate(node["_target_"])).parameters.items()}
    assert defaults == {key: value for key, value in node.items() if key != "_target_"}
