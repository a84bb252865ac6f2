"""What can be done with runs on a volume: listed, brought home, read, stopped."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from runtime.errors import UsageError, closest
from scripts.remote import status
from scripts.remote.backend import Entry, Provider, Volume
from scripts.remote.options import Options
from scripts.remote.transfer import download, read_json

OVER = ("finished", "failed", "cancelled")


@dataclass(frozen=True)
class Given:
    """What a command of scripts/modal_app.py was given. rest: what fid and benchmark pass on."""

    runs: list[str]
    options: Options
    checkpoint: str = "newest"
    follow: bool = False
    rest: tuple[str, ...] = ()


def statuses(volume: Volume) -> list[dict[str, Any]]:
    """The status of every run and errand on a volume, the latest heard of first."""
    paths = [entry.path for entry in volume.entries("status") if entry.path.endswith("/status.json")]
    found = [told for path in paths if (told := read_json(volume, path))]
    return sorted(found, key=lambda told: -told["updated"])


def status_of(volume: Volume, run: str) -> dict[str, Any]:
    """A run's status; UsageError with the names that there are."""
    told = read_json(volume, f"{status.folder(run)}/status.json")
    if not told:
        names = [other["name"] for other in statuses(volume)]
        raise UsageError(
            f"there is no run {run!r} on the volume; nearest: {closest(run, names) or 'none, it is empty'}."
        )
    return told


def show(provider: Provider, given: Given) -> None:
    """The table of runs."""
    found = statuses(provider.volume(given.options.volume))
    width = max([len(told["name"]) for told in found], default=0) + 2
    print(f"{'run':<{width}}{'state':<11}{'step':>9}{'attempt':>9}  {'gpu':<12}{'heard of':<14}{'call'}")
    for told in found:
        ago = _ago(status.now() - told["updated"])
        place = f"{told['attempt']:>9}  {told['gpu']:<12}{ago:<14}{told['call']}"
        print(f"{told['name']:<{width}}{told['state']:<11}{told['step']:>9,}{place}  {told['message']}".rstrip())
    if not found:
        print(f"the volume {given.options.volume} has no runs yet.")


def sync(provider: Provider, given: Given) -> None:
    """Everything but checkpoints home."""
    volume = provider.volume(given.options.volume)
    runs = given.runs or [told["name"] for told in statuses(volume) if told["kind"] == "train"]
    for run in runs:
        status_of(volume, run)
        try:
            bring(volume, run, lambda name: not name.startswith("checkpoints/"))
        except UsageError as error:
            if given.runs:
                raise
            print(f"{run}: left out. {error}")  # asked for everything: the others still come


def checkpoints(provider: Provider, given: Given) -> None:
    """The table of checkpoints."""
    run, volume = given.runs[0], provider.volume(given.options.volume)
    status_of(volume, run)
    print(f"{'checkpoint':<36}{'MiB':>10}")
    for entry in saved(volume, run):
        print(f"{Path(entry.path).name:<36}{entry.size / 2**20:>10.1f}")


def fetch(provider: Provider, given: Given) -> None:
    """A run with checkpoints home."""
    run, volume = given.runs[0], provider.volume(given.options.volume)
    status_of(volume, run)
    names = [Path(entry.path).name for entry in saved(volume, run)]
    steps = [name for name in names if name.startswith("step_")]
    if given.checkpoint == "newest":
        wanted = steps[-1:]
    elif given.checkpoint == "all":
        wanted = names
    elif given.checkpoint in names:
        wanted = [given.checkpoint]
    else:
        near = closest(given.checkpoint, names) or "none"
        raise UsageError(f"{run} has no checkpoint {given.checkpoint!r}; nearest: {near}.")
    bring(volume, run, lambda name: not name.startswith("checkpoints/") or name.split("/")[-1] in wanted)


def bring(volume: Volume, run: str, wanted: Callable[[str], bool]) -> None:
    """Files of a run home, and its rows into the dashboard."""
    folder = Path("outputs") / run
    if status.made_here(folder):
        raise UsageError(f"{folder} is of a run on this machine; rename it, so that {run} can come home.")
    there = {Path(entry.path).name for entry in volume.entries(f"outputs/{run}")}
    if went_on := sorted({path.name for path in folder.glob("resume-*.yaml")} - there):
        raise UsageError(f"{folder} went on here ({went_on[0]}); rename it, so that {run} can come home.")
    came = download(volume, run, folder, wanted)
    if came and not (folder / "modal.json").exists():
        status.write(folder / "modal.json", status_of(volume, run))
    if "metrics.jsonl" in came and (folder / "trackio_run.json").exists():
        replay(folder)
    print(f"{run}: {len(came)} new files in {folder}")


def replay(folder: Path) -> None:
    """Makes the dashboard's rows of a run those of its record."""
    from training.tracking import Tracker

    config: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    track = config["trackio"]
    tracker = Tracker(folder, track["project"], config["run_name"], config, track["enabled"])
    tracker.replay(json.loads((folder / "trackio_run.json").read_text()))


def saved(volume: Volume, run: str) -> list[Entry]:
    """The entries of a run's checkpoints, by name."""
    found = volume.entries(f"outputs/{run}/checkpoints")
    return sorted((e for e in found if e.path.endswith(".safetensors")), key=lambda e: e.path)


def logs(provider: Provider, given: Given) -> None:
    """What a run has printed, by attempt."""
    run, volume = given.runs[0], provider.volume(given.options.volume)
    told = status_of(volume, run)
    for line in printed(volume, run):
        print(line, end="")
    if given.follow and told["state"] not in OVER:
        for text in provider.calls.logs(told["call"]):
            print(text, end="", flush=True)


def printed(volume: Volume, run: str) -> Iterator[str]:
    """The lines of all attempts, in order."""
    found = [entry.path for entry in volume.entries(status.folder(run)) if entry.path.endswith(".log")]
    for path in sorted(found, key=lambda path: int(Path(path).stem.split("-")[1])):
        yield from b"".join(volume.read(path)).decode(errors="replace").splitlines(keepends=True)


def cancel(provider: Provider, given: Given) -> None:
    """Stops a run for good."""
    run, volume = given.runs[0], provider.volume(given.options.volume)
    told = status_of(volume, run)
    if told["state"] in OVER:
        raise UsageError(f"{run} is {told['state']} already; there is nothing to cancel.")
    provider.calls.cancel(told["call"])
    print(f"{run}: asked to save and stop, at step {told['step']:,} when last heard of; go on with: "
          f"python launcher.py --backend modal run_name={run} resume=true")  # fmt: skip


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"
