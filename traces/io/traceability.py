"""One page that says what a run was: settings, graph, data, models, curves and where it ran."""

import platform
import re
import shlex
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from runtime import device
from runtime.instantiate import locate
from traces.io.contents import data_of, graphs_of, models_of, objects_of
from traces.trace import Trace
from training import checkpoint


class Traceability(Trace):
    """Writes <save_path>/<name of the run>.html when a training or a test ends, also one that is stopped or fails.

    save_path: a folder, or the file itself where it ends in .html; None: report.html in the run's folder. The page
    holds everything it shows and needs no network and no scripts. extra_objects: more objects whose settings it lists.
    Settings are read when training begins: the resolved config of a launcher's run, and what estimator, pipeline, ops
    and traces were made with. Sittings before a resume stay listed, and their curves where the run has a record or a
    RestoreWizard. List it last, so that it sees what the other traces log at the end. write: `write(report, path)`
    makes the page, or its name.
    """

    def __init__(self, save_path: str | Path | None = None, extra_objects: Any = (),
                 write: Callable[..., Path] | str = "visualizers.report.write_report"):  # fmt: skip
        super().__init__(mode="!infer")
        self.save_path = None if save_path is None else Path(save_path)
        self.extra_objects = list(extra_objects) if isinstance(extra_objects, list | tuple) else [extra_objects]
        self.write: Callable[..., Path] = locate(write) if isinstance(write, str) else write
        self.sittings: list[dict[str, Any]] = []
        self.contents: dict[str, Any] = {}
        self.running = False

    def on_begin(self, data: Any) -> None:
        """Reads settings, graphs, data and models once, and notes this sitting."""
        estimator = self.estimator
        self.sittings.append(
            {"mode": data.mode, "begun": now(), "ended": "", "from step": estimator.step, "to step": "", "end": "",
             "git": checkpoint.provenance()["git"], "command": shlex.join(sys.orig_argv)}
        )  # fmt: skip
        if not self.contents:
            workspace = estimator.workspace
            config = "" if workspace is None else OmegaConf.to_yaml(OmegaConf.create(workspace.meta["config"]))
            self.contents = {
                "config": config, "objects": objects_of(estimator, self.extra_objects), "graphs": graphs_of(estimator),
                "data": data_of(estimator.pipeline), "models": models_of(estimator),
            }  # fmt: skip
        self.running = True

    def on_end(self, data: Any) -> None:
        """Writes the page."""
        self._finish(self.estimator.summary.reason or "finished")

    def on_close(self) -> None:
        """Writes it where the run did not come to its end."""
        if self.running:
            signal = self.estimator.signal
            self._finish(f"stopped by signal {signal}" if signal else "failed")

    def _finish(self, end: str) -> None:
        estimator, workspace = self.estimator, self.estimator.workspace
        self.running = False
        self.sittings[-1] |= {"ended": now(), "to step": estimator.step, "end": end}
        epochs = estimator.step / estimator.steps_per_epoch
        facts = {"end": end, "steps": f"{estimator.step:,}", "epochs": f"{epochs:.6g}",
                 "seconds of training": f"{estimator.elapsed:.1f}"}  # fmt: skip
        record = None if workspace is None else workspace.folder / "metrics.jsonl"
        report = {
            **self.contents, "title": self.title, "facts": facts, "sittings": self.sittings,
            "environment": {**checkpoint.provenance(), **device.describe(), "system": platform.platform()},
            "metrics": record if record and record.is_file() else None, "history": estimator.summary.history,
        }  # fmt: skip
        try:
            print(f"report: {self.write(report, self.path)}")
        except OSError as error:
            print(f"warning: the report could not be written to {self.path} ({error}).")

    @property
    def title(self) -> str:
        """The run's name, the Summary's, or "run"."""
        workspace = self.estimator.workspace
        return self.estimator.summary.name or ("run" if workspace is None else workspace.meta["run_name"])

    @property
    def path(self) -> Path:
        """Where the page goes."""
        if self.save_path is None:
            workspace = self.estimator.workspace
            return Path("report.html") if workspace is None else workspace.folder / "report.html"
        stem = re.sub(r"\W+", "_", self.title.lower()).strip("_") or "run"
        return self.save_path if self.save_path.suffix == ".html" else self.save_path / f"{stem}.html"

    def state_dict(self) -> dict[str, Any]:
        """The sittings so far; the one that runs has come to the step of the checkpoint."""
        *past, current = self.sittings or [{}]
        return {"sittings": [*past, {**current, "ended": now(), "to step": self.estimator.step}] if current else []}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them back."""
        self.sittings = [*state["sittings"], *self.sittings]


def now() -> str:
    """The local time to the second, with its zone."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
