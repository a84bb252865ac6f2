"""The command line's flags for a machine elsewhere, read and checked before MLX or Modal is imported."""

import argparse
import re
from dataclasses import dataclass

from runtime.errors import UsageError, closest
from runtime.schema import in_seconds

BACKENDS = ("local", "modal")
# Modal's names and most of each in a container (modal.com/docs/guide/gpu); "!" refuses a better card in its place,
# "+" allows one.
GPUS = {"T4": 8, "L4": 8, "A10": 4, "L40S": 8, "A100": 8, "A100-40GB": 8, "A100-80GB": 8, "RTX-PRO-6000": 8, "H100": 8,
        "H100!": 8, "H200": 8, "B200": 8, "B200+": 8}  # fmt: skip
LONGEST = 24 * 3600  # seconds, Modal's limit for one attempt; a run that needs more goes on in its next attempt
CUDA = ("13", "12")


@dataclass(frozen=True)
class Options:
    """What the flags say. gpu: NAME or NAME:COUNT. timeout: seconds of an attempt. retries: attempts after failures."""

    gpu: str = "H100"
    timeout: int = LONGEST
    retries: int = 5
    cuda: str = "13"
    detach: bool = True
    dry_run: bool = False
    data_on_volume: bool = False
    volume: str = "mlx-lab"
    secrets: tuple[str, ...] = ()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UsageError(f"{message}.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    for name in ("--backend", "--gpu", "--timeout", "--retries", "--cuda", "--volume"):
        parser.add_argument(name)
    parser.add_argument("--secret", action="append", default=[])
    parser.add_argument("--detach", action=argparse.BooleanOptionalAction, default=True)
    for name in ("--dry-run", "--data-on-volume"):
        parser.add_argument(name, action="store_true")
    return parser


def asked(arguments: list[str]) -> bool:
    """Whether a command line names a backend."""
    return any(text == "--backend" or text.startswith("--backend=") for text in arguments)


def split(arguments: list[str]) -> tuple[str, Options, list[str]]:
    """The backend, the options and the overrides of a command line; UsageError for a wrong flag or value."""
    parser = _parser()
    given, rest = parser.parse_known_args(arguments)
    if strange := [text for text in rest if text.startswith("-")]:
        valid = sorted(flag for action in parser._actions for flag in action.option_strings)
        raise UsageError(
            f"there is no flag {strange[0]!r} with --backend; nearest: {closest(strange[0], valid)}; "
            f"all: {', '.join(valid)}."
        )
    backend = given.backend if given.backend is not None else "modal"
    if backend not in BACKENDS:
        raise UsageError(f"--backend must be one of {', '.join(BACKENDS)}, got {backend!r}.")
    standard = Options()
    options = Options(
        gpu=gpu(given.gpu if given.gpu is not None else standard.gpu),
        timeout=timeout(given.timeout if given.timeout is not None else str(standard.timeout)),
        retries=_whole("--retries", given.retries, standard.retries, 10),
        cuda=cuda(given.cuda if given.cuda is not None else standard.cuda),
        detach=given.detach,
        dry_run=given.dry_run,
        data_on_volume=given.data_on_volume,
        volume=name("--volume", given.volume if given.volume is not None else standard.volume),
        secrets=tuple(name("--secret", text) for text in given.secret),
    )
    return backend, options, rest


def gpu(text: str) -> str:
    """A GPU in Modal's spelling, "H100" or "H100:2"; UsageError with the valid names for anything else."""
    name, colon, count = text.upper().partition(":")
    name = {"A10G": "A10"}.get(name, name)
    if name not in GPUS:
        raise UsageError(
            f"--gpu {text!r} does not exist; nearest: {closest(name, list(GPUS))}; all: {', '.join(GPUS)}."
        )
    if not colon:
        return name
    if not re.fullmatch(r"\d+", count) or not 1 <= int(count) <= GPUS[name]:
        raise UsageError(f"--gpu {name}:N needs a whole N from 1 to {GPUS[name]}, got {text!r}.")
    return name if int(count) == 1 else f"{name}:{int(count)}"


def timeout(text: str) -> int:
    """Seconds of one attempt; UsageError outside Modal's bounds."""
    seconds = in_seconds(text, "--timeout") or 0
    if not 10 <= seconds <= LONGEST:
        raise UsageError(f"--timeout must be from 10s to 24h (of one attempt; the next goes on), got {text!r}.")
    return int(seconds)


def _whole(flag: str, text: str | None, standard: int, most: int) -> int:
    if text is None:
        return standard
    if not re.fullmatch(r"\d+", text) or int(text) > most:
        raise UsageError(f"{flag} must be a whole number from 0 to {most}, got {text!r}.")
    return int(text)


def cuda(text: str) -> str:
    """A version of CUDA; UsageError for another than MLX is built for."""
    if text not in CUDA:
        raise UsageError(f"--cuda must be one of {', '.join(CUDA)} (12 for drivers before 580), got {text!r}.")
    return text


def name(flag: str, text: str) -> str:
    """A name as Modal takes it; UsageError that names the flag for another."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text):
        raise UsageError(f'{flag} must be made of letters, digits, ".", "_" and "-", got {text!r}.')
    return text
