"""A table of everything that is logged."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.op import active, as_tuple
from traces.trace import Trace
from training.data import as_numpy, plain

FIRST = ("mode", "step", "epoch")


class CSVLogger(Trace):
    """Writes what is logged as rows (mode, step, epoch, keys...) of a CSV file; new keys widen its header at any time.

    monitor_names: None or "*" for all; else those logged keys, and batch keys of one number (at every step that
    something is logged). instance_id_key: a batch key; each sample gets a row with its id and its value of every
    monitored batch key. A new training begins a new file; a resumed one drops rows of steps after the one it starts
    from.
    """

    def __init__(self, filename: str | Path, monitor_names: str | Sequence[str] | None = None,
                 instance_id_key: str | None = None, mode: str | Sequence[str] | None = None):  # fmt: skip
        self.monitored = as_tuple(monitor_names or "*")
        self.instance = instance_id_key
        wanted = tuple(name for name in self.monitored if name != "*")
        super().__init__((*wanted, instance_id_key) if instance_id_key else (), mode=mode)
        self.path = Path(filename)
        self.header: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self.open: dict[str, dict[str, Any]] = {}  # this step's row by mode
        self.written, self.stale = 0, True  # rows in the file; whether it must be written anew

    def on_begin(self, data: Any) -> None:
        """Opens the file: anew, or to go on from the estimator's step."""
        self.header = [*(("instance_id",) if self.instance else ()), *FIRST]
        fresh = self.estimator.mode == "train" and self.estimator.step == 0
        self.rows = [] if fresh else [row for row in self._read() if int(row["step"]) <= self.estimator.step]
        self.open, self.stale = {}, True
        self._flush()

    def on_batch_end(self, data: Any) -> None:
        """A row for each sample, where ids are asked for."""
        if self.instance is None:
            return
        ids = as_numpy(data[self.instance]).reshape(-1)
        columns = {name: plain(data[name]) for name in self.inputs if name != self.instance and name in data}
        columns = {name: value for name, value in columns.items() if np.ndim(value) and len(value) == len(ids)}
        for index, one in enumerate(ids if columns else ()):
            own = {name: plain(value[index]) for name, value in columns.items()}
            self.rows.append({"instance_id": one.item(), **self._place(self.estimator.mode), **own})
            self._widen(self.rows[-1])

    def on_log(self, values: dict[str, Any]) -> None:
        """Adds values to the row of their mode and this step."""
        for name, value in values.items():
            mode, slash, key = name.partition("/")
            mode, key = (mode, key) if slash and mode in ("train", "eval", "test") else ("train", name)
            if not active(self.mode, mode) or not ("*" in self.monitored or key in self.monitored):
                continue
            if self.open.get(mode, {}).get("step") != self.estimator.step:
                self.open[mode] = self._place(mode)
                self.rows.append(self.open[mode])
            row = self.open[mode]
            row[key] = plain(value)
            self._widen(row)
            self.stale |= any(row is other for other in self.rows[: self.written][-9:])  # it is in the file already

    def on_epoch_end(self, data: Any) -> None:
        """Brings the file up to date, so that it can be read meanwhile."""
        self._flush()

    def on_step_end(self) -> None:
        """Brings the file up to date before a checkpoint can be saved."""
        self._flush()

    def on_end(self, data: Any) -> None:
        """Brings the file up to date."""
        self._flush()

    def on_close(self) -> None:
        """Brings the file up to date, also after an error."""
        self._flush()

    def _place(self, mode: str) -> dict[str, Any]:
        return {"mode": mode, "step": self.estimator.step, "epoch": self.estimator.epoch}

    def _widen(self, row: dict[str, Any]) -> None:
        new = [name for name in row if name not in self.header]
        self.header += new
        self.stale |= bool(new)

    def _flush(self) -> None:
        if self.stale:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_name(f".{self.path.name}.partial")
            with temporary.open("w", newline="") as file:
                writer = csv.DictWriter(file, self.header, restval="")
                writer.writeheader()
                writer.writerows(self.rows)
            temporary.replace(self.path)
        elif self.written < len(self.rows):
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.header, restval="").writerows(self.rows[self.written :])
        self.written, self.stale = len(self.rows), False

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file)
            self.header += [name for name in reader.fieldnames or () if name not in self.header]
            return [row for row in reader if None not in row and None not in row.values()]  # a kill cuts a line short
