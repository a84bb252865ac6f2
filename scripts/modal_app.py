"""Looks after runs on Modal: where they are, what they say, their files home, and work on them there.

usage: python scripts/modal_app.py COMMAND [RUN ...] [key=value ...]

  list                        every run on the volume: state, step, attempt, GPU, when it was last heard of
  sync [RUN ...]              brings all but checkpoints home to outputs/ and into the dashboard; no name: every run
  ckpts RUN                   its checkpoints: step, size
  download RUN                sync, and its newest checkpoint; checkpoint=all, or the name of one
  logs RUN                    what it printed; follow=true: go on as it prints
  cancel RUN                  saves and stops it for good; resume=true starts it again
  fid RUN [evaluation.KEY=..] evaluates its newest checkpoint there: scripts/evaluate.py with evaluation=fid, or another
  benchmark [--FLAG ...]      benchmarks/step_time.py there, with its flags

  volume=mlx-lab              the volume
  gpu=H100  timeout=2h  cuda=13    of fid and benchmark, as for python launcher.py --backend modal
"""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

from runtime.errors import UsageError, closest
from runtime.schema import check_run_name
from scripts.arguments import command as run_command
from scripts.remote import options as flags
from scripts.remote.backend import Provider
from scripts.remote.errands import benchmark, fid
from scripts.remote.manage import Given, cancel, checkpoints, fetch, logs, show, sync
from scripts.remote.options import Options
from scripts.remote.submit import modal

SETTINGS = ("volume", "gpu", "timeout", "cuda", "checkpoint", "follow")


def main(arguments: list[str], provider: Provider | None = None) -> int:
    """The command line; returns the exit status."""

    def work(arguments: list[str]) -> None:
        name, given = read(arguments)
        COMMANDS[name][0](provider or modal(), given)

    try:
        return run_command(work, str(__doc__), arguments)
    except KeyboardInterrupt:  # of what is shown here; what runs there goes on
        return 130


def read(arguments: list[str]) -> tuple[str, Given]:
    """The command and what it was given; UsageError for anything wrong."""
    command, *more = arguments
    if command not in COMMANDS:
        raise UsageError(f"there is no command {command!r}; nearest: {closest(command, [*COMMANDS])}; "
                         f"all: {', '.join(COMMANDS)}.")  # fmt: skip
    settings, runs, rest = {}, [], []
    for text in more:
        key, equals, value = text.partition("=")
        if command == "benchmark" and (text.startswith("-") or not equals):
            rest.append(text)
        elif not equals:
            runs.append(check_run_name(text))
        elif key in SETTINGS:
            settings[key] = value
        elif command == "fid":
            rest.append(text)
        else:
            raise UsageError(f"there is no key {key!r}; nearest: {closest(key, [*SETTINGS])}.")
    needs = COMMANDS[command][1]
    if needs is not None and len(runs) != needs:
        raise UsageError(f"{command} needs {needs or 'no'} run{'' if needs == 1 else 's'}, got {len(runs)}.")
    options = Options(
        volume=flags.name("volume", settings.get("volume", Options.volume)),
        gpu=flags.gpu(settings.get("gpu", Options.gpu)), timeout=flags.timeout(settings.get("timeout", "2h")),
        cuda=flags.cuda(settings.get("cuda", Options.cuda)), detach=False, retries=1,
    )  # fmt: skip
    return command, Given(runs, options, settings.get("checkpoint", "newest"), _flag(settings, "follow"), tuple(rest))


def _flag(settings: dict[str, str], key: str) -> bool:
    text = settings.get(key, "false")
    if text not in ("true", "false"):
        raise UsageError(f"{key} must be true or false, got {text!r}.")
    return text == "true"


COMMANDS: dict[str, tuple[Callable[[Provider, Given], None], int | None]] = {  # and how many runs each takes
    "list": (show, 0), "sync": (sync, None), "ckpts": (checkpoints, 1), "download": (fetch, 1), "logs": (logs, 1),
    "cancel": (cancel, 1), "fid": (fid, 1), "benchmark": (benchmark, 0),
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
