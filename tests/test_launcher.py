"""The command line: every option of every group composes, builds and runs."""

import gzip
import io
import os
import shutil
import struct
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

import launcher
from models.lenet import LeNet
from runtime.errors import UsageError
from scripts import sample
from scripts.compose import compose, groups, options
from scripts.sampling import opened
from training.build import save_model

TINY = [
    "run_name=t", "epochs=null", "max_steps=2", "eval_every=null", "trackio.enabled=false", "device=cpu",
    "traces.evaluation.pictures=null", "traces.progress.quiet=true", "compile=false",
]  # fmt: skip
SMALL_DIT = ["model.hidden=16", "model.depth=2", "model.heads=2"]
SMALL_UNET = ["model.channels=8", "model.blocks=1", "model.multipliers=[1,2]", "model.attention=[4]"]
SMALL_AUTOENCODER = ["model.channels=[8,16]", "model.blocks=1"]
IMAGES_8 = ["dataloaders=digits", "dataloaders.batch_size=4"]
CLASSIFIER = ["network=classifier", "dataloaders=fashion_mnist", "batch_size=5"]
SMALL_VIT = ["network=classifier", "dataloaders=cifar10", "batch_size=5", "model.patch=8", *SMALL_DIT]
SCENES = ["network=segmenter", "dataloaders=scenes", "batch_size=4", "dataloaders.train_data.size=16",
          "dataloaders.shape=[16,16,3]", "dataloaders.train_data.count=8"]  # fmt: skip
PAIRS = ["network=siamese", "dataloaders=fashion_mnist_pairs", "batch_size=4", "model.shape=[65,65,1]",
         "model.hidden=8", "model.channels=2"]  # fmt: skip
SMALL_EIS = ["model.width=8", "model.depth=1", "model.slots=4", "model.hidden=16"]
EIS = ["dataloaders=eis", "model=eis_predictor", "loss=eis", "batch_size=5", *SMALL_EIS]
SMALL_FLOW = [*SMALL_EIS, "model.flow_width=16", "model.flow_depth=1"]
FLOW = ["dataloaders=eis", "model=eis_flow", "loss=eis_flow", "batch_size=5", *SMALL_FLOW]
RESNET9 = ["model=resnet9", "model.channels=4", "batch_size=5"]
STUDENT = ["network.models.teacher.file=teacher.safetensors", "dataloaders.train_data.fraction=8"]
WITHOUT_MODEL = {  # experiments whose models all stand in network.models
    "cvae": [],
    "dcgan": ["network.models.generator.channels=16", "network.models.discriminator.channels=4"],
    "distillation": STUDENT,
}
SMALL_GPT = ["model.hidden=16", "model.depth=1", "model.heads=2"]
SMALL = {
    "model=unet": ["dataloaders=digits", "dataloaders.batch_size=4", *SMALL_UNET],
    "model=song_unet": ["dataloaders=digits", "dataloaders.batch_size=4", *SMALL_UNET],
    "model=cnn": ["dataloaders=digits", "dataloaders.batch_size=4", "model.channels=8"],
    **{
        f"model=dit_{size}": ["dataloaders=digits", "dataloaders.batch_size=4", *SMALL_DIT]
        for size in "s b m l xl".split()
    },
    **{
        f"model={name}": ["dataloaders=digits", "dataloaders.batch_size=4", *SMALL_DIT, "model.head_depth=1"]
        for name in ("imf_dit", "imf_dit_xl")
    },
    "dataloaders=image_folder": ["dataloaders.classes=2"],
    "dataloaders=imagenet": ["dataloaders.classes=2", "dataloaders.train_data.size=16"],
    "dataloaders=celeba": ["dataloaders.train_data.size=16"],
    "model=autoencoder": [*IMAGES_8, *SMALL_AUTOENCODER, "loss=autoencoder"],
    "model=vae": [*IMAGES_8, *SMALL_AUTOENCODER, "loss=autoencoder", "model.groups=4", "model.weights=null"],
    "model=lenet": CLASSIFIER,
    "model=resnet9": ["network=classifier", "dataloaders=cifar10", *RESNET9[1:]],
    "model=wide_resnet": [
        "network=classifier",
        "dataloaders=cifar10",
        "batch_size=5",
        "model.depth=10",
        "model.widen_factor=1",
    ],
    **{f"model=vit_{size}": SMALL_VIT for size in ("tiny", "small", "base", "large")},
    "model=segmentation_unet": [*SCENES, "model.channels=2"],
    "model=attention_unet": [*SCENES, "model.channels=2"],
    "model=siamese": PAIRS,
    "network=classifier": [*CLASSIFIER, "model=lenet"],
    "network=augmented_classifier": ["dataloaders=cifar10_rows", *RESNET9],
    "network=segmenter": [*SCENES, "model=segmentation_unet", "model.channels=2"],
    "network=siamese": [*PAIRS, "model=siamese"],
    "network=adversarial_classifier": ["experiment=fgsm", "batch_size=5"],
    "network=distillation": ["experiment=distillation", "batch_size=4", *STUDENT],
    "network=language_model": ["experiment=gpt", "batch_size=4", *SMALL_GPT],
    "dataloaders=genesis": ["experiment=gpt", *SMALL_GPT],
    "dataloaders=fashion_mnist_few": ["dataloaders.train_data.fraction=10"],
    "dataloaders=fashion_mnist_pairs": [*PAIRS, "model=siamese"],
    "loss=autoencoder": [*IMAGES_8, "model=autoencoder", *SMALL_AUTOENCODER],
    "dataloaders=eis": EIS,
    "model=eis_predictor": EIS,
    "model=eis_factorial": [*EIS[:1], *EIS[2:4], "model.hidden=16"],
    "loss=eis": EIS,
    "model=eis_flow": FLOW,
    "loss=eis_flow": FLOW,
    "solver=average": ["loss=meanflow"],
    "solver=dopri5": ["evaluation.count=64", "evaluation.exact_count=32"],
}
EVALUATIONS = {
    "points": ["evaluation.count=200", "evaluation.exact_count=100", "evaluation.floor_pairs=2"],
    "gaussians_to_moons": ["evaluation.count=100", "evaluation.exact_count=100"],
    "digits": ["dataloaders=digits", "evaluation.count=32", "evaluation.subset_size=32", "evaluation.floor_pairs=1"],
    "copying": ["evaluation.count=40", "evaluation.train_count=500"],
    "none": [],
}


def idx_file(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def jpeg(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with tiny data sets in data/ and a LeNet's weights."""
    folder = tmp_path_factory.mktemp("images")
    data = folder / "data"
    rng = np.random.default_rng(0)
    for name in ("mnist", "fashion_mnist"):
        for part, count in (("train", 20), ("t10k", 20)):
            images = rng.integers(0, 255, (count, 28, 28), dtype=np.uint8)
            idx_file(data / f"{name}/{part}-images-idx3-ubyte.gz", images)
            idx_file(data / f"{name}/{part}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 10)
    for name, parts in (("image_folder", ("train", "eval")), ("cifar10", ("train", "test"))):
        kinds = (
            ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
            if name == "cifar10" else ["a", "b"]
        )  # fmt: skip
        for part in parts:
            for kind in kinds:
                for i in range(6):
                    file = data / f"{name}/{part}/{kind}/{i}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file)
    face, photo = (jpeg(rng.integers(0, 255, shape, dtype=np.uint8)) for shape in ((218, 178, 3), (30, 40, 3)))
    files = {data / f"celeba/img_align_celeba/{i:06}.jpg": face for i in range(24)}
    files |= {data / f"imagenet/{part}/n{i % 2}/{i}.JPEG": photo for part in ("train", "val") for i in range(12)}
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (data / "celeba/list_eval_partition.txt").write_text("".join(f"{i:06}.jpg {i % 2}\n" for i in range(24)))
    for part in ("train", "eval"):
        (data / f"imagenet_latents/{part}").mkdir(parents=True)
        moments = {name: mx.random.uniform(shape=(40, 32, 32, 4), dtype=mx.float16) for name in ("mean", "std")}
        shard = data / f"imagenet_latents/{part}/0.safetensors"
        mx.save_safetensors(str(shard), {**moments, "label": mx.arange(40)})
    save_model(LeNet(), str(folder / "teacher"))
    return folder


@pytest.fixture
def image_data(images, tmp_path, monkeypatch):
    """The folder of a test, which runs in it: links to the tiny data sets; what it adds stays with it."""
    shutil.copytree(images, tmp_path, copy_function=os.link, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def two_steps(folder, *overrides):
    overrides = [*TINY, *overrides]
    return launcher.train(compose(overrides), folder / "t", overrides)


ELSEWHERE = ("gpt", "transformer", "cvae", "dcgan")  # test_launcher_models.py
PUZZLES = ("trm", "hrm", "act", "sudoku", "maze", "arc")  # test_launcher_puzzles.py
CASES = [
    (group, option)
    for group in groups()
    for option in options(group)
    if group not in ("evaluation", "experiment", "debug") and not option.startswith(ELSEWHERE + PUZZLES)
]


@pytest.mark.parametrize(("group", "option"), CASES, ids=lambda x: x)
def test_every_option_composes_builds_and_takes_two_steps(group, option, image_data):
    if group == "traces" and option in options("debug"):
        pytest.skip(f"run by debug={option} below")
    extra = SMALL.get(f"{group}={option}", [])
    if group == "dataloaders":
        extra = [*extra, "batch_size=10", *(["model=cnn", "model.channels=4"] if option in IMAGES else [])]
    name = [] if any(text.startswith("evaluation") for text in extra) else ["evaluation=none"]
    summary = two_steps(image_data, f"{group}={option}", *extra, *name)
    assert summary.steps == 2


def test_improved_meanflow_with_everything(tmp_path):
    led = ["velocity_head=true", "guidance_max=8", "conditions=[label]", "label_dropout=0.1", "guidance=4"]
    small = ["model.hidden=16", "model.depth=2", "model.heads=2", "model.head_depth=1"]
    told = ["loss=imf", *(f"loss.{text}" for text in led), "solver=average", "evaluation=none"]
    images = ["dataloaders=digits", "dataloaders.batch_size=4"]
    run = ["model=imf_dit", *images, *small, "compile=true", "precision=bf16", "trackio.log_every=1"]
    summary = two_steps(tmp_path, *told, *run)
    assert summary.steps == 2 and np.isfinite(summary.history[-1]["train/velocity_mse"])
    objective: Any = opened(str(tmp_path / "t"), False, None, {}, 3.0, 0.25, 0.5).objective
    assert (objective.guidance, objective.guided_from, objective.guided_to) == (3.0, 0.25, 0.5)
    with pytest.raises(UsageError, match="guided_from=0.25"):
        two_steps(tmp_path / "other", "loss=meanflow", "evaluation=none")
        opened(str(tmp_path / "other" / "t"), False, None, {}, None, 0.25)
    with pytest.raises(UsageError, match="velocity_head, guidance, interval"):
        two_steps(tmp_path, *told, "model=mlp", *images)


def test_what_an_augmentation_did_reaches_the_model_and_sampling_goes_without(image_data):
    small = ["model=song_unet", "model.channels=8", "model.multipliers=[1]", "model.blocks=1", "model.attention=[]"]
    told = ["model.augment=[0,2,5,6,7,8]", "loss=meanflow", "loss.conditions=[label,augment]", "solver=average"]
    overrides = [*small, *told, "evaluation=none", "batch_size=10"]
    assert two_steps(image_data, *overrides, "dataloaders=cifar10_augmented", "eval_every=2s").steps == 2
    assert sample.main([f"checkpoint={image_data}/t", "num_samples=2", "out=s.npz", "device=cpu"]) == 0
    with np.load("s.npz") as made:
        assert np.isfinite(made["samples"]).all() and set(made) == {"samples", "noise", "label", "info"}
    with pytest.raises(UsageError, match="augment, which the data do not give .dataloaders=cifar10_augmented gives"):
        two_steps(image_data, *overrides, "dataloaders=cifar10", "overwrite=true")


def test_an_autoencoders_run_ends_without_samples(tmp_path):
    """Whatever draws pictures by default."""
    told = [*SMALL["loss=autoencoder"], "loss=autoencoder", "evaluation=none"]
    told.append("traces.evaluation.pictures={_target_: visualizers.pictures.SamplePicture}")
    assert two_steps(tmp_path, *told).steps == 2 and not list(tmp_path.glob("t/samples/*"))
    with pytest.raises(UsageError, match="trains AutoencoderLoss, has none; needed: evaluation=none"):
        two_steps(tmp_path / "other", *told, "evaluation=digits", *EVALUATIONS["digits"])


def test_alpha_flow_goes_through_its_whole_curriculum(tmp_path):
    phases = ["loss=alpha_flow", "loss.end=4", "max_steps=6", "solver=average", "evaluation=none", "batch_size=8"]
    summary = two_steps(tmp_path, *phases, "compile=true", "model.hidden=8")
    assert summary.steps == 6


IMAGES = (
    "mnist", "mnist_rows", "fashion_mnist", "fashion_mnist_rows", "fashion_mnist_few", "cifar10", "cifar10_rows",
    "cifar10_augmented", "image_folder", "digits", "shapes", "scenes", "celeba", "imagenet", "imagenet_latents",
)  # fmt: skip


@pytest.mark.parametrize(
    "option", [o for o in options("evaluation") if o not in ("images", "fid", "eis", "puzzles", "arc")]
)
def test_every_evaluation_gives_numbers_and_floors(option, tmp_path):
    summary = two_steps(tmp_path, f"evaluation={option}", *EVALUATIONS[option], "solver.steps=2",
                        *(["model=cnn", "model.channels=4", "batch_size=8"] if option == "digits" else []))  # fmt: skip
    values = {k: v for k, v in summary.latest.items() if k.startswith("eval/")}
    assert all(np.isfinite(v) for v in values.values())
    assert bool(values) == (option != "none") and (not values or any(k.endswith("_floor") for k in values))


SMALL_MODELS = {"UNet": SMALL_UNET, ".DiT": SMALL_DIT, ".IMFDiT": [*SMALL_DIT, "model.head_depth=1"],
                ".Autoencoder": SMALL_AUTOENCODER, "segmentation_unet.UNet": ["model.channels=2"],
                ".ResNet9": ["model.channels=4"], ".EISPredictor": SMALL_EIS, ".EISFlow": SMALL_FLOW,
                ".SiameseNetwork": PAIRS[3:]}  # fmt: skip


@pytest.mark.parametrize("option", [name for name in options("experiment") if not name.startswith(PUZZLES)])
def test_every_experiment_composes_builds_and_takes_two_steps(option, image_data):
    if option in WITHOUT_MODEL:
        small = WITHOUT_MODEL[option]
    else:
        model = compose(["run_name=t", f"experiment={option}"]).model._target_
        small = next((texts for ending, texts in reversed(SMALL_MODELS.items()) if model.endswith(ending)), [])
    summary = two_steps(image_data, f"experiment={option}", "evaluation=none", "batch_size=4", "precision=fp32", *small)
    assert summary.steps == 2


@pytest.mark.parametrize("option", options("debug"))
def test_every_debug_mode_runs(option, tmp_path, capsys):
    steps = {"profile": "max_steps=14", "limit": "max_steps=20", "overfit": "max_steps=60",
             "lr_find": "max_steps=30", "nan": "max_steps=3", "memory": "max_steps=3"}[option]  # fmt: skip
    overrides = [
        "run_name=t",
        f"debug={option}",
        steps,
        "device=cpu",
        "compile=false",
        "batch_size=16",
        "evaluation=none",
    ]
    summary = launcher.train(compose(overrides), tmp_path / "t", overrides)
    told = capsys.readouterr().out
    assert ("\nmetric " in told) == any(name.startswith("eval/") for name in summary.latest)  # no table of nothing
    if option == "profile":
        assert "step_ms_median" in told
    if option == "overfit":
        first, last = summary.history[0]["train/loss"], summary.history[-1]["train/loss"]
        assert last < first
