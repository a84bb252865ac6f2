"""What Modal is told about a function, as plain data: `build_spec` decides, modal_backend.py only passes it on."""

import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from runtime.errors import UsageError
from scripts.remote.options import Options

ROOT = Path(__file__).resolve().parents[2]
SOURCE, MOUNT = "/root", "/vol"  # where the repository and the volume stand in the container
PYTHON = "3.11"
FILES = ("launcher.py", "pyproject.toml", "constraints.txt")
BESIDE = ("benchmarks",)  # folders that run there but are no part of the installed package
UNSENT = ("__pycache__", "*.pyc", ".*")  # names of files and folders that stay here
EXTRA = "cuda"  # of pyproject.toml; the image's CUDA is the option's


def build_spec(options: Options, job: dict[str, Any], extras: tuple[str, ...] = (),
               plugins: tuple[str, ...] | list[str] = ()) -> dict[str, Any]:  # fmt: skip
    """The function of a job: image, source, GPU, limits, volume and the keyword arguments of its one call.

    extras: of pyproject.toml, to be installed too. plugins: the user's own packages, sent along.
    """
    return {
        "app": f"mlx-lab-{job['name']}"[:64],
        "image": {
            "base": "debian_slim",
            "python_version": PYTHON,
            "apt_install": ["g++"],  # MLX compiles kernels, runtime/blas.py a shim
            "constraints": "constraints.txt",
            "uv_pip_install": pins(options.cuda, extras),
            "env": {"PYTHONUNBUFFERED": "1", "MLX_LAB_GIT": revision()},
        },
        "source": {"files": list(FILES), "folders": folders(), "to": SOURCE},
        "plugins": list(plugins),
        "function": {
            "name": "execute",
            "gpu": options.gpu,
            "timeout": options.timeout,
            "retries": {"max_retries": options.retries, "initial_delay": 10.0, "backoff_coefficient": 2.0},
            "single_use_containers": True,  # an attempt finds a fresh mount of the volume and no process of the last
            "include_source": False,  # the source is listed above
            "serialized": False,
        },
        "volumes": {MOUNT: {"name": options.volume, "create_if_missing": True, "version": 2}},
        "secrets": list(options.secrets),
        "arguments": {"job": job},
    }


def pins(cuda: str = "13", extras: tuple[str, ...] = ()) -> list[str]:
    """The packages that the image installs: pyproject's, each at the version in constraints.txt, MLX for CUDA."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = project["optional-dependencies"]
    versions = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.M))
    versions = {_plain(name): version for name, version in versions.items()}
    wanted = [*project["dependencies"], *known[EXTRA], *(line for extra in extras for line in known[extra])]
    found = {}
    for line in wanted:
        name = re.match(r"[A-Za-z0-9._-]+", line)
        if name is None or "," in line or ";" in line or "==" not in line:
            version = versions.get(_plain(name[0])) if name else None
            if version is None:
                raise UsageError(f"constraints.txt has no version of {line!r}; refresh it with pyproject.toml.")
            line = f"{name[0]}=={version}" if name else line
        line = line.replace("[cuda13]", f"[cuda{cuda}]")
        found[_plain(re.split(r"[\[=]", line)[0])] = line  # mlx[cuda13] takes the place of mlx
    return sorted(found.values(), key=str.lower)


def folders() -> list[str]:
    """The repository's folders that run elsewhere."""
    include = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    names = [pattern.rstrip("*") for pattern in include]
    return sorted(name for name in (*names, *BESIDE) if (ROOT / name).is_dir())


def place_of(plugin: str) -> Path:
    """The folder or file of a user's package; UsageError where there is none."""
    found = importlib.util.find_spec(plugin)
    if found is not None and found.submodule_search_locations:
        return Path(next(iter(found.submodule_search_locations)))
    if found is None or found.origin is None:
        raise UsageError(f"plugins names {plugin!r}, which can't be imported here; install it or correct the name.")
    return Path(found.origin)


def revision() -> str:
    """The commit of the source that is sent, with "+" where it is changed, or "unknown"."""
    command = ["git", "-C", ROOT, "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
    except FileNotFoundError:  # no git here
        return "unknown"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
