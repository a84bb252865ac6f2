"""From ground truths to a report in one command: spectra in files, a trained predictor, its evaluation, a prediction.

python scripts/eis_pipeline.py [--mode full|generate|train|evaluate|predict] [--engine mlx|pytorch] [--device auto]
                               [--n_ground_truths 100] [--n_epochs 50] [--samples 500000] [key=value ...]

The configuration is that of `python launcher.py experiment=eis_series` with 50 frequencies, 1% noise, and all or three
parameters unknown; key=value changes it as there. Everything lies in OUT/NAME: data/, run/ (the launcher's, with
checkpoints/ and metrics.jsonl) and report.json. Modes go on with what earlier ones left there.

--n_ground_truths: circuits to train on, and as many others to judge by; 0: fresh ones all the time.
--samples: spectra of an epoch; left out: 200 for each ground truth. --engine pytorch: the same first weights, data and
steps by benchmarks/eis_train_torch.py under --torch_python; what it has learned becomes a checkpoint like any other.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs

# isort: split
import mlx.core as mx
import numpy as np
from omegaconf import DictConfig, OmegaConf

import launcher
from dataloaders import eis_shards
from dataloaders.eis import Spectra
from domains.eis import NAMES, TOPOLOGIES, UNITS, from_places
from runtime import device
from runtime.errors import UsageError
from runtime.trees import flatten
from scripts import predict_eis
from scripts.arguments import at_least, change
from scripts.compose import compose, merged
from training import checkpoint
from training.experiment import Experiment, assemble, evaluate_run, load_run
from training.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("generate", "train", "evaluate", "predict")
FEW = 2000  # steps for which compiling kernels on a CPU takes longer than it saves


def overrides(given: argparse.Namespace) -> list[str]:
    """What the options change in the experiment, then the command line's own changes."""
    samples, steps = given.samples, given.n_epochs * (given.samples // given.batch_size)
    data = "dataloaders.train_data"
    found = [
        "run_name=run", f"output_dir={folder_of(given)}", f"experiment=eis_{given.topology}",
        f"device={given.device}", f"seed={given.seed}", f"epochs={given.n_epochs}", f"batch_size={given.batch_size}",
        f"{data}.prior={'truths' if given.n_ground_truths else 'continuous'}", f"{data}.truths={given.n_ground_truths}",
        f"{data}.size={samples}", f"{data}.points=50", f"{data}.noise=0.01", f"{data}.kinds=[modulus]",
        f"{data}.rs=0.0",
        f"{data}.known=[0.5,0,0,0.5]", f"{data}.blank=0.0", f"{data}._target_=dataloaders.eis_shards.StoredSpectra",
        f"+{data}.folder={folder_of(given) / 'data'}", "dataloaders.shape=[50,4]",
        f"dataloaders.eval_data.size={given.held_out}", f"optimizer.schedule.total={steps}",
        f"optimizer.schedule.warmup={min(500, steps // 10)}", "trackio.enabled=false",
    ]  # fmt: skip
    if steps < FEW and device.select(given.device) == mx.Device(mx.cpu):
        found.append("compile=false")
    return merged(found, given.overrides)


def folder_of(given: argparse.Namespace) -> Path:
    """Where everything of this name lies."""
    return Path(given.out) / given.name


def generate(given: argparse.Namespace, config: DictConfig) -> dict[str, Any]:
    """Writes the training spectra."""
    options: Any = OmegaConf.to_container(config.dataloaders.train_data)
    folder = Path(options.pop("folder"))
    del options["_target_"]
    begin = time.perf_counter()
    made, there = eis_shards.write(folder, options, draws=given.seed, part=given.part)
    seconds = time.perf_counter() - begin
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(
        f"data        {folder}: {made:,} spectra written in {seconds:.1f} s, {there:,} were there, {size / 1e6:.0f} MB"
    )
    return {"rows": made + there, "written": made, "seconds": round(seconds, 2), "megabytes": round(size / 1e6, 1)}


def train(given: argparse.Namespace, config: DictConfig, texts: list[str]) -> dict[str, Any]:
    """Trains by the engine; the folder then holds a checkpoint."""
    folder = folder_of(given) / "run"
    if given.engine == "pytorch":
        return train_by_twin(given, config, texts)
    summary = launcher.train(config, folder, texts)
    seconds = json.loads((folder / "summary.json").read_text())["training_seconds"]
    return {"engine": "mlx", "steps": summary.steps, "seconds": seconds,
            "samples_s": round(summary.steps * config.batch_size / seconds), **device.describe()}  # fmt: skip


def train_by_twin(given: argparse.Namespace, config: DictConfig, texts: list[str]) -> dict[str, Any]:
    """The same training by PyTorch; its weights are saved as a checkpoint of this configuration."""
    if subprocess.run([given.torch_python, "-c", "import torch"], capture_output=True).returncode:
        raise UsageError(f"--engine pytorch needs PyTorch, which {given.torch_python} can't import; give a Python that "
                         "has it with --torch_python.")  # fmt: skip
    device.select("cpu")
    experiment = assemble(config)
    workspace = Workspace(config, folder_of(given) / "run", texts)
    try:
        line = twin(given, config, experiment)
        estimator = experiment.estimator
        estimator.step, estimator.elapsed = line["steps"], line["seconds"]
        meta = {**workspace.meta, **estimator.state_dict(), "tracker": workspace.tracker.state()}
        file = workspace.checkpoints / f"step_{estimator.step:08d}.safetensors"
        checkpoint.save(file, estimator.state_arrays(), meta)
        workspace.say(f"PyTorch took {line['steps']:,} steps in {line['seconds']:.1f} s; checkpoint {file}")
    finally:
        workspace.close()
    return {"engine": "pytorch", **line}


def twin(given: argparse.Namespace, config: DictConfig, experiment: Experiment) -> dict[str, Any]:
    """Runs the twin from the experiment's first weights and puts its last ones in their place."""
    model = experiment.learner.model
    with tempfile.TemporaryDirectory() as name:
        start, end = Path(name) / "start.npz", Path(name) / "end.npz"
        first: dict = {f"weights/{path}": np.array(array) for path, array in flatten(model.parameters()).items()}
        options = {name: value for name, value in config.model.items() if name not in ("_target_", "shape")}
        first |= {f"options/{name}": np.array(value) for name, value in options.items()}
        np.savez(start, **first)
        rates = ["--rate", str(config.optimizer.learning_rate), "--warmup", str(config.optimizer.schedule.warmup)]
        rates += [] if config.optimizer.clip is None else ["--clip", str(config.optimizer.clip)]
        done = subprocess.run(
            [given.torch_python, str(ROOT / "benchmarks" / "eis_train_torch.py"), str(start),
             config.dataloaders.train_data.folder, str(end), "--steps", str(experiment.estimator.total_steps),
             "--batch", str(config.batch_size), "--seed", str(config.seed), "--device", given.device, *rates],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise UsageError(f"PyTorch's training ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
        with np.load(end) as held:
            model.load_weights([(path, mx.array(held[path])) for path in held.files])
    for update in experiment.network.updates:
        update.averages.reset(update.leaves())
    return json.loads(done.stdout.strip().splitlines()[-1])


def evaluate(given: argparse.Namespace) -> dict[str, Any]:
    """Judges the checkpoint on the held-out circuits, fresh spectra, with configs/evaluation/eis.yaml."""

    def changed(config: DictConfig) -> DictConfig:
        data = config.dataloaders.train_data  # not needed, and may be gone
        data._target_ = "dataloaders.eis.Spectra"
        data.pop("folder", None)
        change(config, "evaluation", "eis", {"evaluation.count": given.held_out, "evaluation.samples": given.draws})
        return config

    device.select(given.device)
    metrics, _ = evaluate_run(folder_of(given) / "run", change=changed)
    print("\n".join(launcher.table(metrics)))
    return {"spectra": given.held_out, **metrics}


def predict(given: argparse.Namespace) -> dict[str, Any]:
    """Predicts --file, or one held-out spectrum, by scripts/predict_eis.py, with prediction.json and prediction.png."""
    folder = folder_of(given)
    file, true = (Path(given.file), None) if given.file else held_out(given)
    out, picture = folder / "prediction.json", folder / "prediction.png"
    predict_eis.work([str(file), f"model={folder / 'run'}", f"out={out}", f"picture={picture}",
                      f"device={given.device}"])  # fmt: skip
    best = [record["circuits"][0] for record in json.loads(out.read_text())]
    found: dict[str, Any] = {"file": str(file), "likeliest": best}
    if true is not None:
        print("true values: " + ", ".join(f"{n} {v:.4g} {u}" for (n, v), u in zip(true.items(), UNITS, strict=True)))
        found["true"] = true
    return found


def held_out(given: argparse.Namespace) -> tuple[Path, dict[str, float]]:
    """A file with a spectrum of one of the circuits to judge by, and its parameters."""
    options: Any = OmegaConf.to_container(load_run(folder_of(given) / "run", data=False).config.dataloaders.eval_data)
    del options["_target_"]
    batch = Spectra(**options).draw(1, np.random.default_rng(given.seed))
    file = folder_of(given) / "held_out.csv"
    table = np.column_stack([10.0 ** batch["x"][0, :, 0], batch["x"][0, :, 1:3]])
    np.savetxt(file, table, "%.8g", ",", header="frequency_hz,z_real_ohm,z_imag_ohm", comments="")
    return file, dict(zip(NAMES, from_places(batch["target"][0]).tolist(), strict=True))


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked; argparse itself exits with status 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=["full", *STAGES], default="full")
    parser.add_argument("--engine", choices=["mlx", "pytorch"], default="mlx")
    parser.add_argument("--device", choices=["auto", "gpu", "cpu"], default="auto")
    parser.add_argument("--topology", choices=TOPOLOGIES, default="series")
    parser.add_argument("--n_ground_truths", type=int, default=100)
    parser.add_argument("--n_epochs", type=int, default=50)
    parser.add_argument("--samples", type=int, help="spectra of an epoch; left out: 200 for each ground truth")
    parser.add_argument("--batch_size", type=int, help="left out: 512, or a quarter of the samples where that is less")
    parser.add_argument("--held_out", type=int, help="spectra of other circuits to judge by; left out: 20 for each, at "
                        "most 2000")  # fmt: skip
    parser.add_argument("--draws", type=int, default=200, help="circuits drawn for each of them")
    parser.add_argument("--file", help="what to predict; left out: a spectrum of a circuit to judge by")
    parser.add_argument("--part", type=int, default=50_000, help="spectra in a file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="outputs")
    parser.add_argument("--name", default="eis_pipeline", help="of the folder in OUT")
    parser.add_argument("--torch_python", default=sys.executable, metavar="PATH")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of the configuration")
    given = parser.parse_intermixed_args(arguments)
    at_least(0, n_ground_truths=given.n_ground_truths, seed=given.seed)
    at_least(1, n_epochs=given.n_epochs, samples=given.samples, batch_size=given.batch_size, part=given.part)
    at_least(20, held_out=given.held_out, draws=given.draws)
    if given.held_out is None:
        given.held_out = max(20, min(2000, 20 * given.n_ground_truths or 2000))
    if given.samples is None:
        given.samples = 200 * given.n_ground_truths or 100_000
    if given.batch_size is None:
        given.batch_size = max(1, min(512, given.samples // 4))
    if given.batch_size > given.samples:
        raise UsageError(f"batch_size={given.batch_size} exceeds samples={given.samples}; give more samples.")
    return given


def work(given: argparse.Namespace) -> None:
    """The stages of the mode, each noted in report.json when it is done."""
    texts = overrides(given)
    config = compose(texts)
    does = {"generate": lambda: generate(given, config), "train": lambda: train(given, config, texts),
            "evaluate": lambda: evaluate(given), "predict": lambda: predict(given)}  # fmt: skip
    file = folder_of(given) / "report.json"
    for stage in STAGES if given.mode == "full" else (given.mode,):
        begin = time.perf_counter()
        done = {**does[stage](), "stage_seconds": round(time.perf_counter() - begin, 2)}
        report = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(report | {stage: done}, indent=2) + "\n")
    print(f"report      {file}")


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status: 0, or 2 for the user's mistakes."""
    try:
        work(parsed(arguments))
    except (UsageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
