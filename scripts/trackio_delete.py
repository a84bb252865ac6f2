"""Lists trackio's runs and deletes some of them: rows, configs, alerts and pictures. Folders of runs stay as they are.

usage: python scripts/trackio_delete.py --list | PATTERN [--dry-run] [--yes] [project=mlx-lab]

  --list             every run of the project: name, steps, pictures, first and last entry, id
  PATTERN            runs by name, such as first or 'lr_*' (quote it for the shell), or one run by its whole id
  --dry-run          shows what would go, deletes nothing
  --yes              does not ask
  project=mlx-lab    the project

Of two runs with one name, deleting one by its id keeps the other's pictures. A run that is still training writes on,
and resuming a run or `modal_app.py sync` brings its rows back from its metrics.jsonl.
"""

import contextlib
import json
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ instead

from runtime.columns import columns
from runtime.errors import UsageError, closest
from scripts.arguments import command

TABLES = ("metrics", "configs", "system_metrics", "alerts", "traces")  # that name a run and the time of each row
TIMES = {"configs": "created_at"}
MEDIA = {"metrics": ("metrics",), "traces": ("messages", "metadata", "spans")}  # columns whose JSON names pictures


@dataclass
class Stored:
    """A run as the project's database has it, whatever table it is in."""

    id: str
    names: set[str] = field(default_factory=set)
    steps: int = 0
    first: str = "9"  # after every date
    last: str = ""

    def fits(self, pattern: str) -> bool:
        """Whether a pattern means this run: by a name, or by its whole id."""
        return pattern == self.id or any(fnmatchcase(name, pattern) for name in self.names)


class Store:
    """A project in trackio's own storage; UsageError where there is none of that name."""

    def __init__(self, project: str):
        from trackio.fragments import import_inbox_dir
        from trackio.sqlite_storage import SQLiteStorage
        from trackio.utils import MEDIA_DIR, project_media_dir

        import_inbox_dir()  # rows that wait there (TRACKIO_STORAGE_MODE=jsonl) would bring a deleted run back
        self.project, self.path = project, SQLiteStorage.get_project_db_path(project)
        if not self.path.exists():
            known = SQLiteStorage.get_projects()
            raise UsageError(
                f"trackio has no project {project!r}; nearest: {closest(project, known) or 'none'}; "
                f"all: {', '.join(known) or 'none'} (in {self.path.parent})."
            )
        SQLiteStorage.init_db(project)  # of older versions: the columns of today
        self.storage, self.top, self.media = SQLiteStorage, MEDIA_DIR, project_media_dir(project)

    def _rows(self, query: str, *values: str) -> list[tuple]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as database:
            return database.execute(query, values).fetchall()

    def runs(self) -> list[Stored]:
        """Every run, the oldest first; trackio's own list lacks those that have a config or an alert but no metric."""
        found: dict[str, Stored] = {}
        for table in TABLES:
            time = TIMES.get(table, "timestamp")
            query = (
                f"SELECT run_id, run_name, COUNT(*), MIN({time}), MAX({time}) FROM {table} GROUP BY run_id, run_name"
            )
            for id, name, count, first, last in self._rows(query):
                run = found.setdefault(id, Stored(id))
                run.names.add(name)
                run.steps += count if table == "metrics" else 0
                run.first, run.last = min(run.first, first), max(run.last, last)
        return sorted(found.values(), key=lambda run: (run.first, run.id))

    def pictures(self) -> dict[str, set[Path]]:
        """The files that the rows of each run name, by run id: existing ones below the project's media folder."""
        found: dict[str, set[Path]] = {}
        for table, fields in MEDIA.items():
            for column in fields:
                # trackio stores JSON as blobs, on which LIKE may never match
                query = f"SELECT run_id, {column} FROM {table} WHERE CAST({column} AS TEXT) LIKE '%file_path%'"
                for id, text in self._rows(query):
                    files = [self._inside(self.top / name) for name in named(json.loads(text))]
                    found.setdefault(id, set()).update(file for file in files if file)
        return found

    def _inside(self, file: Path) -> Path | None:
        """The file itself if it is one of this project's, wherever `..` and links lead."""
        file = file.resolve()
        return file if file.is_file() and file.is_relative_to(self.media.resolve()) else None

    def victims(self, chosen: list[Stored]) -> set[Path]:
        """The files that go with these runs: theirs, and what no row names in folders of names that no other run has.

        trackio keeps a run's pictures in <media>/<run's name>/<step>/, which runs of one name share, and which lies
        in another run's folder if that one is called like the part before a slash.
        """
        gone = {run.id for run in chosen}
        kept = [run for run in self.runs() if run.id not in gone]
        files = self.pictures()
        found = set().union(*(files.get(id, set()) for id in gone))
        taken = {name for run in kept for name in run.names} | {"files"}  # files: what trackio.save put there
        for name in {name for run in chosen for name in run.names}:
            folder = (self.media / name).resolve()
            others = [(self.media / other).resolve() for other in taken]
            if not folder.is_relative_to(self.media.resolve()) or folder == self.media.resolve():
                continue  # a run called ".."
            for file in folder.rglob("*"):
                if (own := self._inside(file)) and not any(own.is_relative_to(other) for other in others):
                    found.add(own)
        return found - set().union(*(files.get(run.id, set()) for run in kept))

    def delete(self, chosen: list[Stored]) -> None:
        """Deletes runs and their files; UsageError if anything of them is left."""
        files = self.victims(chosen)
        for run in chosen:
            for name in sorted(run.names):  # trackio answers False for a database error, without saying which
                if not self.storage.delete_run(self.project, name, run_id=run.id):
                    raise UsageError(f"trackio could not delete {name} ({run.id}); is another process writing to it?")
            with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as database, database:
                database.execute("DELETE FROM pending_uploads WHERE run_id = ?", (run.id,))  # trackio leaves these
        files -= set().union(*self.pictures().values())  # whatever was logged meanwhile
        for file in files:
            file.unlink(missing_ok=True)
        for folder in sorted({above for file in files for above in file.parents}, key=lambda path: -len(path.parts)):
            if folder.is_relative_to(self.media.resolve()) and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        if left := {run.id for run in self.runs()} & {run.id for run in chosen}:
            raise UsageError(f"{', '.join(sorted(left))} wrote rows while it was deleted; stop that run first.")


def named(value: Any) -> Iterator[str]:
    """The media files that a logged value names, however deep in tables and messages."""
    if isinstance(value, dict):
        if str(value.get("_type", "")).startswith("trackio.") and isinstance(value.get("file_path"), str):
            yield value["file_path"]
        for inner in value.values():
            yield from named(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from named(inner)


def size(files: set[Path]) -> str:
    """Number and size of files, "3 (0.1 MB)"."""
    return f"{len(files)} ({sum(file.stat().st_size for file in files) / 1e6:.1f} MB)"


def table(store: Store, runs: list[Stored]) -> list[str]:
    """A line a run, for people."""
    files = store.pictures()
    rows = [("name", "steps", "pictures", "first entry", "last entry", "id")]
    for run in runs:
        first, last = (time[:19].replace("T", " ") for time in (run.first, run.last))
        rows.append((", ".join(sorted(run.names)), str(run.steps), size(files.get(run.id, set())), first, last, run.id))
    return columns(rows)


def agreed(count: int) -> bool:
    """Whether the user says yes; UsageError where nobody can."""
    try:
        return input(f"Delete {count} run{'s' * (count > 1)}? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError as error:
        raise UsageError("nobody answered whether to delete; needed: --yes, or --dry-run to only look.") from error


def read(arguments: list[str]) -> tuple[str | None, set[str], str]:
    """Pattern (None: list), flags, project; UsageError for anything else."""
    flags, patterns, project = set(), [], "mlx-lab"
    for text in arguments:
        if text.startswith("project="):
            project = text.removeprefix("project=")
        elif text in ("--list", "--dry-run", "--yes"):
            flags.add(text)
        elif text.startswith("-"):
            raise UsageError(f"there is no {text}; nearest: {closest(text, ['--list', '--dry-run', '--yes'])}.")
        else:
            patterns.append(text)
    if len(patterns) + ("--list" in flags) != 1:
        got = " ".join([*(["--list"] if "--list" in flags else []), *patterns]) or "neither"
        raise UsageError(f"needed: --list or one PATTERN (in quotes if it holds a *), got {got}.")
    return (patterns or [None])[0], flags, project


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    return command(work, str(__doc__), arguments)


def work(arguments: list[str]) -> None:
    """Lists, or shows, asks and deletes."""
    pattern, flags, project = read(arguments)
    store = Store(project)
    runs = store.runs()
    if pattern is None:
        print("\n".join(table(store, runs)) if runs else f"{project} has no runs.")
        return
    chosen = [run for run in runs if run.fits(pattern)]
    if not chosen:
        names = sorted({name for run in runs for name in run.names})
        raise UsageError(
            f"no run of {project} is called {pattern!r}; nearest: {closest(pattern, names) or 'none'} (--list has all)."
        )
    print("\n".join(table(store, chosen)))
    files = size(store.victims(chosen))
    if "--dry-run" in flags:
        print(f"dry run: {len(chosen)} of {len(runs)} runs and files {files} would go")
    elif "--yes" in flags or agreed(len(chosen)):
        store.delete(chosen)
        print(f"deleted {len(chosen)} of {len(runs)} runs and files {files}")
    else:
        print("nothing is deleted")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
