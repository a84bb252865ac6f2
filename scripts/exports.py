"""What the scripts that open and make small files of trained models share (training/exported.py)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import UsageError
from scripts.arguments import ends_in, parse, weights
from training import checkpoint

WEIGHTS = Path(__file__).resolve().parents[1] / "models" / "weights"  # those that ship


@dataclass
class Settings:
    """The keys of the command line."""

    checkpoint: str = "???"
    out: str = "???"
    ema: str = "true"


def found(given: str | Path, shipped: Mapping[str, Path]) -> Path:
    """The file meant by the name of a shipped model, a file or a run's folder; UsageError where there is none."""
    path = shipped.get(str(given), Path(given))
    if str(given) in shipped and not path.is_file():
        raise UsageError(f"no weights are shipped for {given} ({path} is missing): give a checkpoint instead.")
    return checkpoint.find(path)


def work(arguments: list[str], export: Callable[[str, str, bool | float], None]) -> None:
    """Exports one model and says how large the file is."""
    given, _ = parse(arguments, Settings)
    ends_in((".safetensors",), out=given.out)
    export(given.checkpoint, given.out, weights(given.ema))
    print(f"{given.out}: {Path(given.out).stat().st_size / 1e6:.1f} MB")
