"""scripts/summarize.py: counts and shapes of composed configs, and that nothing is trained or written."""

import pytest

from runtime.config_files import save_config
from scripts import summarize
from scripts.compose import compose

SMALL = ["model=mlp", "model.hidden=16", "model.depth=2", "batch_size=7", "device=cpu"]


def told(capsys, *arguments):
    assert summarize.main(list(arguments)) == 0
    return capsys.readouterr().out


def test_an_objective_with_its_optimizer_and_averages(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = told(capsys, *SMALL)
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert out.startswith("model: MLP, FlowMatching")
    assert rows["enter"][:4] == ["enter", "Linear", "(7,", "16)"] and rows["leave"][2:4] == ["(7,", "2)"]
    count = (4 * 16 + 16) + (16 * 16 + 16) + (16 * 2 + 2)
    assert f"{count:,} parameters, {count:,} trainable" in out and "batch: x (7, 2) float32" in out
    assert rows["models"][1] == str(count) and rows["averages"][1] == str(count + 1)
    assert rows["optimizers"][1] == str(2 * count + 2)  # Adam's moments, its step and its rate
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_two_models_with_depth(capsys, tmp_path):
    small = ["network.models.generator.channels=16", "network.models.discriminator.channels=4", "batch_size=3"]
    out = told(capsys, "experiment=dcgan", "depth=0", *small)
    assert "(3, 28, 28, 1)" in out and "(3, 1) x 2" in out and "conv1" not in out
    assert "generator: Generator" in out and "discriminator: Discriminator" in out


def test_a_saved_config_and_data_that_is_not_there(capsys, tmp_path):
    config = compose(["run_name=t", *SMALL])
    config.dataloaders = {"_target_": "dataloaders.pipeline.Pipeline", "train_data": {"_target_": "nowhere.At"}}
    out = told(capsys, str(save_config(config, tmp_path / "c.yaml")))
    assert "no output shapes: _target_ 'nowhere.At'" in out and "parameters" in out and "batch:" not in out


def test_a_model_that_does_not_fit_the_network_is_still_counted(capsys):
    out = told(capsys, *SMALL, "network=classifier")
    assert "no output shapes: this model needs times" in out and "386 parameters" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=unt"], "model=unt does not exist; nearest: unet"),
        (["depth=x", "model=mlp"], "depth must be 0 or more, got 'x'"),
        (["outputs/none"], "there is no config at outputs/none"),
        (["outputs/none", "model=mlp"], "needed: one run's folder or overrides"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message, capsys):
    assert summarize.main(arguments) == 2
    assert message in capsys.readouterr().err
