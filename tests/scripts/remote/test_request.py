"""What is checked about a run before it is sent: its name, its configuration, the data that it reads."""

from pathlib import Path

import pytest

from runtime.errors import UsageError
from scripts.remote.options import Options
from scripts.remote.request import digest, needed, prepare

FASHION = ["run_name=x", "dataloaders=fashion_mnist"]


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_run_without_files_needs_none():
    request = prepare(["run_name=1.10", "epochs=3"], Options())
    assert (request.run_name, request.overrides, request.paths) == ("1.10", ["run_name=1.10", "epochs=3"], [])
    assert request.job != prepare(["run_name=1.10"], Options()).job and not request.resume


def test_several_gpus_take_a_process_each():
    two = Options(gpu="H100:2")
    assert prepare(["run_name=x"], two).overrides == ["run_name=x", "distributed.processes=2"]
    assert prepare(["run_name=x", "distributed.processes=2"], two).overrides == [
        "run_name=x",
        "distributed.processes=2",
    ]
    with pytest.raises(UsageError, match="distributed.processes=3 needs as many GPUs, got H100:2"):
        prepare(["run_name=x", "distributed.processes=3"], two)
    with pytest.raises(UsageError, match="distributed.processes=2 needs as many GPUs, got H100"):
        prepare(["run_name=x", "distributed.processes=2"], Options(gpu="H100"))


def test_data_must_be_here_or_said_to_be_on_the_volume():
    with pytest.raises(UsageError, match="data/fashion_mnist is not here.*--data-on-volume"):
        prepare(FASHION, Options())
    assert prepare(FASHION, Options(data_on_volume=True)).paths == ["data/fashion_mnist"]
    Path("data/fashion_mnist").mkdir(parents=True)
    assert prepare(FASHION, Options()).paths == ["data/fashion_mnist"]


def test_a_name_of_a_run_on_this_machine_is_taken():
    Path("outputs/x").mkdir(parents=True)
    Path("outputs/x/config.yaml").write_text("")
    with pytest.raises(UsageError, match="outputs/x is of a run on this machine"):
        prepare(["run_name=x"], Options())
    Path("outputs/x/modal.json").write_text("{}")  # it came home from there
    assert prepare(["run_name=x"], Options()).run_name == "x"


def test_a_file_inside_a_folder_that_is_sent_is_not_sent_twice():
    assert needed({"a": {"root": "data/x"}, "b": [{"file": "data/x/y.npz"}], "c": "data/xy"}) == ["data/x", "data/xy"]


@pytest.mark.parametrize("path", ["/big/cifar10", "elsewhere/cifar10", "data/../../cifar10"])
def test_paths_that_another_machine_would_not_find_are_refused(path):
    with pytest.raises(UsageError, match=f"{path} can't be found on another machine"):
        prepare(["run_name=x", "dataloaders=cifar10", f"dataloaders.train_data.root={path}"], Options())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["epochs=1"], "run_name is missing"),
        (["run_name=../x"], "'../x'"),
        (["run_name=x", "modle=unet"], "nearest: model"),
        (["run_name=x", "model=unett"], "nearest: unet"),
        (["run_name=x", "eval_checkpoint=outputs/first"], "modal_app.py fid"),
        (["run_name=x", "device=cpu"], "device=cpu"),
        (["run_name=x", "output_dir=/elsewhere"], "output_dir=/elsewhere"),
        (["run_name=x", "init_from=outputs/none"], "outputs/none is not here"),
        (["run_name=x", "plugins=[no_such_package]"], "'no_such_package'"),
    ],
    ids=str,
)
def test_mistakes(overrides, said):
    with pytest.raises(UsageError) as caught:
        prepare(overrides, Options())
    assert said in str(caught.value)


def test_the_digest_is_of_the_configuration_not_of_its_spelling():
    first = digest(["run_name=x", "model.hidden=64"])
    assert (
        first == digest(["run_name='x'", "model.hidden=64", "resume=true"]) == digest(["model.hidden=64", "run_name=x"])
    )
    assert first != digest(["run_name=x", "model.hidden=65"])
