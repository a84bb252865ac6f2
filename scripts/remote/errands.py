"""Short commands that run on Modal and are waited for: an evaluation, a benchmark."""

import uuid
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from runtime.errors import UsageError
from scripts.compose import options as options_of
from scripts.remote import status
from scripts.remote.backend import Call, Provider, Volume
from scripts.remote.manage import Given, saved, status_of
from scripts.remote.options import Options
from scripts.remote.request import needed
from scripts.remote.spec import MOUNT, build_spec
from scripts.remote.transfer import read_json, upload

EXTRAS = {"fid": ("fid",), "images": ("fd",)}  # of pyproject.toml, by evaluation
BENCHMARK = ("--model", "unet36", "--precision", "bf16")


def fid(provider: Provider, given: Given) -> None:
    """Evaluates a run's newest checkpoint where it is; its metrics are printed and brought home."""
    run, volume = given.runs[0], provider.volume(given.options.volume)
    status_of(volume, run)
    if not saved(volume, run):
        raise UsageError(f"{run} has no checkpoint yet.")
    asked = {text.partition("=")[0]: text.partition("=")[2] for text in given.rest}
    evaluation = asked.setdefault("evaluation", "fid")
    if evaluation not in options_of("evaluation"):
        raise UsageError(f"evaluation={evaluation} does not exist; all: {', '.join(options_of('evaluation'))}.")
    if evaluation == "fid" and "evaluation.features.weights" not in asked:
        raise UsageError("FID needs Inception's weights: evaluation.features.weights=data/..., see docs/modal.md.")
    config: Any = OmegaConf.create(b"".join(volume.read(f"outputs/{run}/config.yaml")).decode())
    data: Any = OmegaConf.to_container(config.dataloaders)
    reads = needed([data, {key.rpartition(".")[2]: text for key, text in asked.items()}])
    for path in reads:
        if Path(path).exists():
            upload(volume, path)
        elif not volume.entries(path):
            raise UsageError(f"{path} is neither here nor on the volume; put it there to be sent.")
    command = ["scripts/evaluate.py", f"checkpoint=outputs/{run}", "out=result.json"]
    command += [f"{key}={text}" for key, text in asked.items()]
    name = f"{run}.{evaluation}"
    ran(provider, name, command, given.options, [f"outputs/{run}", *reads], EXTRAS.get(evaluation, ()))
    found = read_json(volume, f"{status.folder(name)}/result.json")
    home = Path("outputs") / run / f"{evaluation}.json"
    status.write(home, found)
    for metric, value in found["metrics"].items():
        print(f"{metric:<32}{value:>12.5g}" if isinstance(value, int | float) else f"{metric:<32}{value:>12}")
    print(f"metrics: {home}")


def benchmark(provider: Provider, given: Given) -> None:
    """Runs benchmarks/step_time.py on a GPU there and prints its JSON lines."""
    flags = given.rest or BENCHMARK
    command = ["benchmarks/step_time.py", *(() if "--device" in flags else ("--device", "gpu")), *flags]
    ran(provider, "benchmark", command, given.options, [])
    for line in _last_output(provider.volume(given.options.volume), "benchmark"):
        if line.startswith("{"):
            print(line, end="")


def ran(provider: Provider, name: str, command: list[str], options: Options, reads: list[str],
        extras: tuple[str, ...] = ()) -> None:  # fmt: skip
    """Runs a command of this repository there to its end; UsageError with its last line where it fails."""
    job = {
        "id": uuid.uuid4().hex[:12], "name": name, "kind": "errand", "command": command, "digest": "", "reads": reads,
        "gpu": options.gpu, "cuda": options.cuda, "volume": options.volume, "mount": MOUNT,
    }  # fmt: skip

    def told(call: Call) -> None:
        print(f"{name}: sent to Modal, {options.gpu}, call {call.id}\ndashboard  {call.page}")

    result = provider.calls.spawn(build_spec(options, job, extras), False, told)
    if result is None:
        raise UsageError(f"{name} was left alone; python scripts/modal_app.py logs {name} shows what came of it.")
    if result["state"] != "finished":
        raise UsageError(f"{name} {result['state']}: {result['message']}")


def _last_output(volume: Volume, name: str) -> list[str]:
    """The lines of the last attempt."""
    attempt = read_json(volume, f"{status.folder(name)}/status.json")["attempt"]
    return b"".join(volume.read(f"{status.folder(name)}/output-{attempt}.log")).decode().splitlines(keepends=True)
