"""`python launcher.py --backend modal ...`: checks here, sends the data and the run away, says how to find it again."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime.errors import UsageError
from scripts.remote import status
from scripts.remote.backend import Call, Provider, Volume
from scripts.remote.options import split
from scripts.remote.request import Request, prepare
from scripts.remote.spec import MOUNT, build_spec
from scripts.remote.transfer import read_json, upload


def modal() -> Provider:
    """Modal; UsageError where its package is missing. Imported here, since it takes half a second."""
    from scripts.remote.modal_backend import Modal

    return Modal()


def spec_of(request: Request) -> dict[str, Any]:
    """The function that trains a run, and its call."""
    job = {
        "id": request.job, "name": request.run_name, "kind": "train", "command": ["launcher.py", *request.overrides],
        "digest": request.digest, "reads": request.paths, "gpu": request.options.gpu, "cuda": request.options.cuda,
        "volume": request.options.volume, "mount": MOUNT,
    }  # fmt: skip
    return build_spec(request.options, job, plugins=request.plugins)


def send(provider: Provider, request: Request) -> int:
    """Sends data and run, waits for it unless detached; returns the exit status."""
    name, options = request.run_name, request.options
    volume = provider.volume(options.volume)
    _free(volume, request)
    for path in request.paths:
        if Path(path).exists():
            upload(volume, path)
    sent: list[Call] = []

    def told(call: Call) -> None:
        sent.append(call)
        note(request, call)
        print(f"{name}: sent to Modal, {options.gpu}, call {call.id}\ndashboard  {call.page}")

    try:
        result = provider.calls.spawn(spec_of(request), options.detach, told)
    except KeyboardInterrupt:
        if not sent:
            raise
        result = None
    if result is None:
        print(_ways(name, options.volume))
        return 0 if options.detach else 130
    if result.get("fallback") and options.cuda != result["fallback"]:
        print(f"{name}: {result['message']} Doing so.")
        return send(provider, replace(request, options=replace(options, cuda=result["fallback"])))
    print(f"{name}: {result['state']} {result['message']}".rstrip())
    print(f"home       python scripts/modal_app.py download {name}")
    return {"finished": 0, "failed": 2}.get(result["state"], 1)


def note(request: Request, call: Call) -> None:
    """Keeps where the run is in its folder here."""
    path = Path("outputs") / request.run_name / "modal.json"
    told = {"call": call.id, "dashboard": call.page, "volume": request.options.volume, "gpu": request.options.gpu,
            "job": request.job, "overrides": request.overrides, "digest": request.digest,
            "sent": status.now()}  # fmt: skip
    status.write(path, told)


def _free(volume: Volume, request: Request) -> None:
    """Raises UsageError where the volume has a run of this name that is not to be touched."""
    name = request.run_name
    if said := status.busy(read_json(volume, f"{status.folder(name)}/status.json")):
        raise UsageError(said)
    asked = {"resume=true", "overwrite=true"} & {text.lower() for text in request.overrides}
    if not asked and volume.entries(f"outputs/{name}/config.yaml"):
        raise UsageError(
            f"{name} is on the volume {request.options.volume} already; go on with resume=true, replace it with "
            "overwrite=true or choose another run_name."
        )


def _ways(name: str, volume: str) -> str:
    """How to find a run again."""
    rest = "" if volume == "mlx-lab" else f" volume={volume}"
    return "\n".join(
        f"{what:<10} python scripts/modal_app.py {command} {name}{rest}"
        for what, command in (("look", "logs"), ("fetch", "sync"), ("stop", "cancel"))
    )


def main(arguments: list[str], provider: Provider | None = None) -> int:
    """The command line; returns the exit status: 0, 1 for a crash, 2 for a mistake, 130 after Ctrl-C."""
    try:
        backend, options, overrides = split(arguments)
        if backend == "local":
            raise UsageError("--backend local takes none of these flags; leave --backend out to run here.")
        request = prepare(overrides, options)
        if options.dry_run:
            print(json.dumps(spec_of(request), indent=2))
            return 0
        return send(provider or modal(), request)
    except (UsageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: no run was sent; data that is on the volume stays there.", file=sys.stderr)
        return 130
