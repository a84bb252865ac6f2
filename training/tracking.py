"""Where numbers go: metrics.jsonl in the run folder (the record) and trackio (the dashboard), with the same rows."""

import contextlib
import io
import json
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runtime.errors import UsageError

ALERT = "alert/"  # what the names of values that are alerts begin with


class Tracker:
    """Collects one row of values per step and writes it to `<folder>/metrics.jsonl` and, where enabled, to trackio.

    A value is a number or a string; one that ends in .png or .gif is a picture's path below `folder`, and one named
    "alert/<subject>..." is "<level>: <text>", which trackio has among its alerts instead. The row of the current step
    stays open until a later step logs, so a checkpoint can hold it: `state()` and `start(resume=state)` make the two
    records those of an uninterrupted run, without duplicates or holes, however much either had lost or run ahead.
    What the end of a training added to that row after its checkpoint (the final evaluation) stays.
    """

    def __init__(self, folder: Path, project: str = "mlx-lab", name: str = "", config: dict | None = None,
                 enabled: bool = True):  # fmt: skip
        self.folder, self.project, self.name, self.enabled = folder, project, name, enabled
        self.config = config or {}
        self.step, self.values = 0, {}
        self.run_id: str | None = None
        self._run: Any = None
        self._file = (folder / "metrics.jsonl").open("a", buffering=1)

    def start(self, resume: dict | None = None) -> None:
        """Opens the trackio run, a new one or that of a checkpoint's `state()`; makes both records agree.

        A state whose "run_id" is None gets a run of its own with all rows: a copy of a run, which goes on beside it.
        """
        if resume:
            self.run_id, self.step, self.values = resume["run_id"], resume["step"], dict(resume["values"])
            self._truncate(before=self.step)
        if self.enabled:
            self._open()

    def replay(self, run_id: str | None) -> None:
        """Makes trackio's rows of a run those of its metrics.jsonl, which another machine wrote; closes both."""
        self.run_id, self.step = run_id, 0
        if self.enabled:
            self._open()
        self.finish()

    def _open(self) -> None:
        """Opens the trackio run, that of `run_id` or a new one; UsageError if trackio refuses a name or setting."""
        import trackio

        config = {key.lstrip("_"): value for key, value in self.config.items()}
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self._run = trackio.init(
                    project=self.project, name=self.name, config=config, embed=False,
                    resume="allow" if self.run_id else "never", auto_log_cpu=False, auto_log_gpu=False,
                )  # fmt: skip
        except ValueError as error:  # a project's name, the level of a webhook
            raise UsageError(f"trackio does not start: {error}") from error
        if self.run_id:
            self._run.id = self.run_id  # trackio resumes by name, and another run may bear this one's
        known, self.run_id = self.run_id, self._run.id
        if known or (self.folder / "metrics.jsonl").stat().st_size:  # rows without a run: see `start`
            self._reconcile()
        told = self.folder / "trackio_run.json"
        if not told.exists() or told.read_text() != json.dumps(self.run_id):
            told.write_text(json.dumps(self.run_id))

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Adds values to the row of `step`; a later step than the open row's closes that row."""
        if step > self.step:
            self.close_row()
        self.step = max(step, self.step)
        self.values |= values
        for name, told in values.items():
            if name.startswith(ALERT):
                self.alert(name, told, self.step)

    def alert(self, name: str, told: str, step: int) -> None:
        """Tells trackio and the webhook that it knows what would be a row's `name: told`; from any thread."""
        if self._run is not None:
            from trackio import AlertLevel

            title, level, text = parts(name, told)
            with contextlib.redirect_stdout(io.StringIO()):
                self._run.alert(title, text, AlertLevel(level), step)

    def close_row(self) -> None:
        """Writes the open row."""
        if self.values:
            row = {"step": self.step, "time": round(time.time(), 3), **self.values}
            self._file.write(json.dumps(row) + "\n")
            self._show(self.values, self.step)
        self.values = {}

    def system(self, values: dict[str, float]) -> None:
        """Shows values of the machine on the dashboard by time instead of by step; from any thread."""
        run = self._run
        if run is not None and values:
            run.log_system({f"machine/{name}": value for name, value in values.items()})

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; the rows written so far are on disk when this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return {"run_id": self.run_id, "step": self.step, "values": self.values}

    def finish(self) -> None:
        """Closes the row and both records."""
        self.close_row()
        self._file.close()
        if self._run is not None:
            import trackio

            with contextlib.redirect_stdout(io.StringIO()):
                trackio.finish()
            for thread in threading.enumerate():
                if "(send_webhook)" in thread.name:  # trackio's, which would die with the process before it has sent
                    thread.join()
        self._run = None

    def _show(self, values: dict[str, Any], step: int) -> None:
        """Gives trackio a row."""
        shown = {name: value for name, value in values.items() if not name.startswith(ALERT)}
        if self._run is not None and shown:
            self._run.log(self._media(shown), step=step)

    def _media(self, values: dict[str, Any]) -> dict[str, Any]:
        import trackio

        pictures = {k: v for k, v in values.items() if isinstance(v, str) and v.endswith((".png", ".gif"))}
        return {k: trackio.Image(str(self.folder / v)) if k in pictures else v for k, v in values.items()}

    def _truncate(self, before: int) -> None:
        """Drops the rows of metrics.jsonl from step `before` on, and a last line that a kill cut short.

        The row of that step is open again, with all that was ever logged in it.
        """
        self._file.close()
        path = self.folder / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        for row in rows:
            if row["step"] == before:
                self.values = {name: row[name] for name in row if name not in ("step", "time")} | self.values
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] < before))
        temporary.replace(path)
        self._file = path.open("a", buffering=1)

    def _reconcile(self) -> None:
        """Makes trackio's rows and alerts those of metrics.jsonl: deletes what ran ahead, adds what it had lost."""
        import sqlite3

        from trackio.sqlite_storage import SQLiteStorage

        path = SQLiteStorage.init_db(self.project)  # trackio's writer makes the tables later, if this machine has none
        with SQLiteStorage._get_process_lock(self.project), contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("DELETE FROM metrics WHERE run_id = ? AND step >= ?", (self.run_id, self.step))
            database.execute("DELETE FROM alerts WHERE run_id = ? AND step > ?", (self.run_id, self.step))
            have = {row[0] for row in database.execute("SELECT step FROM metrics WHERE run_id = ?", (self.run_id,))}
            told = set(database.execute("SELECT step, text FROM alerts WHERE run_id = ?", (self.run_id,)))
            database.commit()
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines if line.endswith("}")]  # the last may have been cut in a copy
        for row in rows:
            if row["step"] not in have:
                self._show({key: value for key, value in row.items() if key not in ("step", "time")}, row["step"])
        for row in [*rows, {"step": self.step, "time": time.time(), **self.values}]:
            for title, level, text in [parts(name, value) for name, value in row.items() if name.startswith(ALERT)]:
                if (row["step"], text) not in told:
                    at = datetime.fromtimestamp(row["time"], UTC).isoformat()
                    SQLiteStorage.bulk_alert(
                        self.project, self.name, [title], [text], [level], [row["step"]], [at], run_id=self.run_id
                    )


def repeatable(row: dict[str, Any]) -> dict[str, Any]:
    """A row of metrics.jsonl without what depends on the clock and the machine: what a resumed run must repeat."""
    return {name: value for name, value in row.items() if name != "time" and not name.startswith(("perf/", "machine/"))}


def parts(name: str, told: str) -> tuple[str, str, str]:
    """Title, level and text of an alert's name and value."""
    level, _, text = told.partition(": ")
    return name.split("/")[1].replace("_", " "), level, text
