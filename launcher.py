"""Trains, resumes or evaluates what a configuration describes.

python launcher.py run_name=NAME [group=option ...] [key=value ...]; --help says more.

In a notebook, `from launcher import load_run` opens a finished run.
"""

import contextlib
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from scripts.remote.options import asked

if __name__ == "__main__" and asked(sys.argv[1:]):  # a mistake is told, a run sent away, before MLX is imported
    from scripts.remote.submit import main as submit

    sys.exit(submit(sys.argv[1:]))

import runtime.blas  # noqa: F401  before mlx: a fast BLAS on Linux CPUs
from runtime import device
from runtime.config_files import differences, leaves
from runtime.errors import UsageError
from runtime.trees import count_parameters
from runtime.world import joined, lost, placed
from scripts.compose import CONFIGS, compose, groups, merged, options, quoted, run_name_of, told, yes
from scripts.processes import follow_parent, together
from training.estimator import Interrupted, Summary
from training.experiment import Experiment, assemble, evaluate_run, load_run
from training.gathering import check_start
from training.signals import caught
from training.workspace import Guest, Workspace

__all__ = ["load_run", "main", "train"]

# Hydra's flags that print something and train nothing, those that go with them, and a backend's
PRINTING = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc")
BESIDE = ("--resolve", "--package", "-p")
GPU_FLAGS = ("--gpu", "--timeout", "--retries", "--cuda", "--detach", "--no-detach", "--dry-run", "--volume",
             "--secret")  # fmt: skip

USAGE = """usage: python launcher.py run_name=NAME [group=option ...] [key=value ...]

  python launcher.py run_name=first                             2-D flow matching, a minute on a laptop
  python launcher.py run_name=digits experiment=digits_fm       small images
  python launcher.py run_name=lenet experiment=fashion_mnist_lenet    a classifier, its network made of ops
  python launcher.py run_name=first resume=true epochs=20       continue a run (its overrides are remembered)
  python launcher.py run_name=lr optimizer.learning_rate=1e-3,1e-4 --multirun     a sweep (scripts/search.py searches)
  python launcher.py eval_checkpoint=outputs/first              evaluate a checkpoint
  python launcher.py run_name=first --cfg job                   print the composed configuration
  python launcher.py --backend modal run_name=first             on a GPU at Modal, see docs/modal.md

Groups and their options:
{groups}
Top-level keys (configs/train.yaml explains each, a group's YAML its own): {keys}
"""


def train(config: DictConfig, folder: Path, overrides: list[str] | None = None, traces: Sequence = ()) -> Summary:
    """Runs one configuration in `folder` from start (or where it stopped) to end; the way in for scripts and tests.

    traces: more of them, told after the config's. Of several processes each trains, and rank 0 does all the rest.
    """
    device.select(config.device, config.memory_limit_gb)
    world = joined(config.distributed.processes, config.distributed.backend)
    experiment = assemble(config, world)
    workspace = Guest(folder) if world.rank else Workspace(config, folder, overrides or [])
    estimator = experiment.estimator
    estimator.workspace, estimator.on_ready = workspace, workspace.settle
    estimator.traces.extend(traces)
    first: int | None = None  # the step that this sitting starts from
    try:
        resumed = _restore(experiment, workspace)
        first = estimator.step
        check_start(estimator.train_step)
        facts = {"parameters": _parameters(experiment), "data": experiment.pipeline.fingerprint()}
        if isinstance(workspace, Workspace):
            workspace.tracker.config |= facts
            workspace.tracker.start(resumed)
        workspace.say(_introduction(experiment))
        began = time.perf_counter()
        with caught(estimator):
            summary = estimator.fit()
        if isinstance(workspace, Workspace):
            workspace.write_summary(
                {"run_name": config.run_name, "steps": summary.steps, "reason": summary.reason,
                 "seconds": round(time.perf_counter() - began, 2), "training_seconds": round(estimator.elapsed, 2),
                 **facts, "metrics": summary.latest, **workspace.meta["provenance"]}
            )  # fmt: skip
        workspace.say(_conclusion(experiment, workspace, summary))
        world.wait()  # rank 0 may judge for long, and a process that ends looks like one that died
    except Interrupted:
        again = f"; go on with: python launcher.py run_name={config.run_name} resume=true"
        alone = folder == Path(config.output_dir) / config.run_name  # and no trial of a sweep
        workspace.say(f"stopped at step {estimator.step}, saved{again if alone else ''}")
        world.wait()  # until rank 0 has saved
        raise
    except Exception:
        if first is None or estimator.step == first:
            workspace.withdraw()
        raise
    finally:
        workspace.close()
    return summary


def _restore(experiment: Experiment, workspace: Guest) -> dict | None:
    """Loads what the config asks to continue or start from; returns the tracker's state of a resumed run."""
    config, estimator = experiment.config, experiment.estimator
    if config.resume and (found := workspace.newest()):
        path, arrays, meta = found
        try:
            estimator.load(arrays, meta, str(path))
        except UsageError as error:
            raise UsageError(f"{error}{_changed(meta['config'], config)}") from error
        workspace.say(f"resuming {config.run_name} from {path.name}")
        of_another = meta["run_name"] != config.run_name  # a copy, that leaves the dashboard's run to the first
        return meta["tracker"] | ({"run_id": None} if of_another else {})
    if config.resume:
        workspace.say(f"no checkpoint in {workspace.checkpoints}: starting from step 0")
        return workspace.unsaved_tracker_state()
    if config.init_from:
        experiment.start_from(config.init_from)
        workspace.say(f"starting from the weights of {config.init_from}")
    return None


def _changed(before: dict, config: DictConfig) -> str:
    """A sentence of the settings that decide which arrays there are and that are no longer a checkpoint's."""
    groups = ("model", "network", "loss", "optimizer", "precision", "accumulate")
    now: Any = OmegaConf.to_container(config)
    both = {name: leaves({key: c.get(key) for key in groups}) for name, c in (("before", before), ("now", now))}
    rows = [f"{key}={old} is now {new}" for key, old, new in differences(both)]
    return f" Changed since: {'; '.join(rows)}." if rows else ""


def _introduction(experiment: Experiment) -> str:
    e, config, data = experiment.estimator, experiment.config, experiment.pipeline
    total = "until max_time" if e.total_steps is None else f"{e.total_steps:,} steps"
    models = ", ".join(type(model).__name__ for model in experiment.learner.models.values())
    others = f" on each of {e.world.size} processes ({e.world.backend})" if e.world.many else ""
    return (
        f"{config.run_name}: {models} with {_parameters(experiment):,} parameters, {experiment.learner.trains}, "
        f"{len(data.source('train')):,} samples {tuple(data.shape)}, "
        f"batch {data.batch_size} x {config.accumulate}{others}, {e.steps_per_epoch:,} steps an epoch, {total}, "
        f"{device.describe()['device']} {config.precision}"
    )


def _parameters(experiment: Experiment) -> int:
    return sum(count_parameters(model) for model in experiment.learner.models.values())


def _conclusion(experiment: Experiment, workspace: Guest, summary: Summary) -> str:
    metrics = {k: v for k, v in summary.latest.items() if k.startswith("eval/")}
    lines = [f"{summary.reason} after {summary.steps:,} steps in {experiment.estimator.elapsed:.1f} s of training", ""]
    lines += [*table(metrics), *ages(summary), ""] if metrics else []
    lines += [f"picture     {workspace.folder / v}" for k, v in summary.latest.items() if k.startswith("samples/")]
    lines += [f"record      {workspace.folder}/metrics.jsonl, summary.json"]
    if workspace.checkpoints.is_dir():
        lines += [f"checkpoint  {workspace.checkpoints}"]
    if experiment.config.trackio.enabled:
        lines += [f"dashboard   trackio show --project {experiment.config.trackio.project}"]
    return "\n".join(lines)


def ages(summary: Summary) -> list[str]:
    """A line for every earlier step that a metric of the table is of."""
    steps: dict[str, int] = {}
    for row in summary.history:
        steps |= {name: row["step"] for name in row if name.startswith("eval/") and not name.endswith("_floor")}
    old = sorted({step for step in steps.values() if step < summary.steps})
    return [f"of step {step:,}: {', '.join(n for n, at in steps.items() if at == step)}" for step in old]


def table(metrics: dict) -> list[str]:
    """Lines of a table of metrics, each beside its data-vs-data floor where there is one."""
    shown = {k: v for k, v in metrics.items() if not k.endswith("_floor") and isinstance(v, int | float)}
    width = max(32, *(len(name) + 2 for name in shown), 0)
    lines = [f"{'metric':<{width}}{'value':>12}{'floor':>12}"]
    for name, value in shown.items():
        floor = metrics.get(f"{name}_floor", metrics.get(f"{measure_of(name)}_floor"))
        lines.append(f"{name:<{width}}{value:>12.5g}{'' if floor is None else f'{floor:.5g}':>12}")
    return lines


def measure_of(name: str) -> str:
    """A metric's name without the solver: eval/emd_10k/euler1 and eval/emd_10k_2step are eval/emd_10k."""
    mode, slash, measure = name.partition("/")
    return mode + slash + re.sub(r"/[^/]+$|_\d+step$", "", measure)


def _single(overrides: list[str]) -> int:
    checkpoint = told(overrides, "eval_checkpoint")
    if checkpoint not in (None, "null"):
        if idle := [text for text in overrides if text.split("=")[0] not in ("eval_checkpoint", "run_name", "device")]:
            raise UsageError(
                f"eval_checkpoint evaluates with the checkpoint's own configuration, {idle[0]} would change nothing; "
                "scripts/evaluate.py checkpoint=... takes changes of evaluation and solver."
            )
        device.select(told(overrides, "device") or "auto")
        print("\n".join(table(evaluate_run(checkpoint)[0])))
        return 0
    if idle := [text for text in overrides if text.lstrip("+~").startswith(("hydra.", "hydra/"))]:
        raise UsageError(f"{idle[0]} changes nothing in a single run, whose folder is <output_dir>/<run_name>; leave "
                         "it out, or sweep with --multirun.")  # fmt: skip
    name = run_name_of(overrides)
    if name is None:
        raise UsageError(
            "run_name is missing; name your run, for example: python launcher.py run_name=first (or --help)."
        )
    if yes(overrides, "resume"):
        overrides = merged(_stored(Path(told(overrides, "output_dir") or "outputs") / name), overrides)
    config = compose(overrides)
    several = config.distributed
    if several.processes > 1 and not placed():
        command = [sys.executable, str(Path(__file__).resolve()), *overrides]
        return together(command, several.processes, several.backend, config.device)
    train(config, Path(config.output_dir) / config.run_name, overrides)
    return 0


def _stored(folder: Path) -> list[str]:
    """The overrides of a run's earlier sittings; none where it has none."""
    file = folder / "overrides.json"
    try:
        return json.loads(file.read_text()) if file.exists() else []
    except ValueError as error:
        raise UsageError(f"{file} is damaged ({error}); delete it and give the run's overrides again.") from error


def _shown(arguments: list[str]) -> int:
    """Hands over to Hydra's flags that print configurations; UsageError for others."""
    import hydra

    flags = [text.split("=")[0] for text in arguments if text.startswith("-")]
    strange = [flag for flag in flags if flag not in (*PRINTING, *BESIDE)]
    if strange or not set(flags) & {*PRINTING}:
        also = "; --gpu and others come with --backend modal" if {*strange} & {*GPU_FLAGS} else ""
        raise UsageError(f"runs take no {(strange or flags)[0]}{also}; --multirun sweeps, --cfg job prints the "
                         "configuration.")  # fmt: skip

    @hydra.main(config_path=str(CONFIGS), config_name="train", version_base="1.3")
    def run(config: DictConfig) -> None:
        raise AssertionError("Hydra's printing flags run nothing")

    sys.argv = [sys.argv[0], *(quoted(text) for text in arguments)]
    run()
    return 0


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status: 0, 2 for the user's mistakes, 128 + n after signal n."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    follow_parent()
    if not arguments or {"-h", "--help"} & set(arguments):
        listing = "\n".join(f"  {g:<12} {' '.join(options(g))}" for g in groups())
        from runtime.schema import KEYS

        print(USAGE.format(groups=listing, keys=" ".join(k for k in KEYS if k not in groups())))
        return 0 if arguments else 2
    try:
        if {"-m", "--multirun"} & set(arguments):
            from scripts.multirun import multirun

            return multirun(arguments)
        flags = [text for text in arguments if text.startswith("-")]
        return (_shown if flags else _single)(arguments)
    except (UsageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        return 128 + stop.signal
    except RuntimeError as error:
        if not lost(error):
            raise
        time.sleep(10)  # whoever started the processes ends this one, once it has told of the one that failed first
        print("error: another process of this run has ended.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main(sys.argv[1:]))
