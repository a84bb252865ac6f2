"""Configs written and read again."""

import pytest
from omegaconf import OmegaConf

from runtime.config_files import load_config, save_config
from runtime.errors import UsageError
from scripts.compose import compose

CONFIG = {
    "name": "1e3", "yes": "true", "rate": 1e-05, "steps": 10, "none": None, "flag": True, "text": "a: b # c",
    "nested": {"list": [1, 2.5, "x", {"deep": [None]}], "empty": {}, "nothing": []}, "unicode": "Ω",
}  # fmt: skip


def test_round_trip_keeps_values_and_types(tmp_path):
    path = save_config(CONFIG, tmp_path / "new" / "config.yaml")
    again = OmegaConf.to_container(load_config(path))
    assert again == CONFIG and [type(v) for v in again.values()] == [type(v) for v in CONFIG.values()]  # type: ignore
    assert OmegaConf.to_container(load_config(save_config({}, path))) == {}
    assert [file.name for file in path.parent.iterdir()] == ["config.yaml"]


def test_references_are_written_as_values_and_a_whole_config_comes_back(tmp_path):
    path = save_config(OmegaConf.create({"a": 3, "b": {"c": "${a}"}}), tmp_path / "c.yaml")
    assert "${" not in path.read_text() and load_config(path).b.c == 3
    config = compose(["run_name=1.10", "model=unet", "dataloaders=digits"])
    again = load_config(save_config(config, path))
    assert OmegaConf.to_container(again) == OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"a": "${b}"}, "Interpolation key 'b' not found"),
        ({"a": {"b": "???"}}, "a.b has no value"),
        ({"a": object()}, "is not a supported primitive type"),
    ],
)
def test_what_cannot_be_written_leaves_the_file_that_is_there(tmp_path, config, message):
    path = save_config({"kept": 1}, tmp_path / "c.yaml")
    with pytest.raises(UsageError, match=message):
        save_config(config, path)
    assert load_config(path).kept == 1


def test_a_runs_folder_means_its_last_sitting(tmp_path):
    for name, value in (("config", 0), ("resume-2", 2), ("resume-10", 10), ("resume-9x", 9)):
        save_config({"value": value}, tmp_path / f"{name}.yaml")
    assert load_config(tmp_path).value == 10 and load_config(str(tmp_path / "config.yaml")).value == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no config at .*; needed: a YAML file or a run's folder"),
        (b"a: [1, 2", "can't read .*: while parsing a flow sequence"),
        (b"a: 1\na: 2", "found duplicate key"),
        (b"\xff\xfe\x00", "can't read"),
        (b"- 1\n- 2", "but a list; needed: a mapping"),
        (b"", "but a NoneType; needed: a mapping"),
        (b"just text", "but a str; needed: a mapping"),
    ],
)
def test_a_missing_or_broken_file_is_one_sentence(tmp_path, content, message):
    file = tmp_path / "c.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        load_config(file)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_runs(tmp_path):
    with pytest.raises(UsageError, match="has no config.yaml"):
        load_config(tmp_path)
