"""`python launcher.py --backend modal ...`: checks here, sends the data and the run away, says how to find it again."""

import json
import sys

from runtime.errors import UsageError
from scripts.remote.options import split
from scripts.remote.request import Request, prepare
from scripts.remote.spec import build_spec


def job_of(request: Request) -> dict:
    """What the function in the container is told: plain data that lasts through retries."""
    return {
        "id": request.job, "name": request.run_name, "kind": "train", "command": ["launcher.py", *request.overrides],
        "digest": request.digest, "reads": request.paths, "gpu": request.options.gpu, "cuda": request.options.cuda,
        "volume": request.options.volume,
    }  # fmt: skip


def work(arguments: list[str]) -> None:
    """Sends a run away, or only prints what would be sent."""
    backend, options, overrides = split(arguments)
    if backend == "local":
        raise UsageError("--backend local takes none of these flags; leave --backend out to run here.")
    request = prepare(overrides, options)
    spec = build_spec(options, job_of(request), plugins=request.plugins)
    if ":" in options.gpu:
        print(f"note: the launcher trains on one GPU; of {options.gpu} the others would stay idle.", file=sys.stderr)
    if options.dry_run:
        print(json.dumps(spec, indent=2))
        return
    raise UsageError("sending a run away is not built yet; --dry-run shows what would be sent.")


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    try:
        work(arguments)
    except (UsageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
