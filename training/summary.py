"""What a fit or a test leaves behind: every logged row, to read, to save and to compare."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import UsageError


@dataclass
class Summary:
    """Steps done, why it ended, the last value of every metric, and all rows in `history`, one a step."""

    steps: int = 0
    reason: str = ""
    latest: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    name: str = ""

    def series(self, metric: str) -> tuple[list[int], list[Any]]:
        """Steps and values of a metric such as "eval/accuracy"; UsageError where it was never logged."""
        rows = [(row["step"], row[metric]) for row in self.history if metric in row]
        if not rows:
            known = sorted({name for row in self.history for name in row} - {"step"})
            raise UsageError(f"{metric!r} was never logged; this summary has {', '.join(known) or 'no metrics'}.")
        return [step for step, _ in rows], [value for _, value in rows]

    def save(self, path: str | Path) -> None:
        """Writes all of it as JSON."""
        Path(path).write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Summary":
        """Reads what `save` wrote; UsageError where the file is absent or something else."""
        try:
            return cls(**json.loads(Path(path).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{path} is not a summary that Summary.save wrote: {error}.") from error
