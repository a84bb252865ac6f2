"""Where numbers first stopped being finite; what `debug=nan` adds to a run."""

import json
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mlx.core as mx

from runtime.calls import watched
from runtime.errors import UsageError
from runtime.slots import snapshot
from traces.trace import Trace
from training.data import Data, plain
from training.origin import Origin, origins


class NaNOrigin(Trace):
    """Ends the run at the first update with a loss or gradient that isn't finite, and names where that began.

    That step is run again uncompiled, with the very batch and key: the guard has left everything else as it was. The
    op, module or leaf is told, printed and written to <folder>/nan_origin.json, the batch and its key (2,) beside it.
    Every step is waited for. With precision=fp16 a gradient that is too large for its loss scale is no such update.
    Where batches are accumulated, carried data is that after the last of them.
    """

    def __init__(self):
        super().__init__(mode="train")
        self.kept: deque[tuple] = deque()
        self.held = ExitStack()

    def on_begin(self, data: Data) -> None:
        """Keeps what the step is called with from here on."""
        step = self.estimator.train_step
        self.kept = deque(maxlen=step.accumulate)
        self.held.enter_context(watched({"step": step}, self._keep))

    def _keep(self, name: str, thing: Any, given: tuple, out: Any) -> Any:
        batch, key, _, _, phases, ds_id, *_ = given[0]
        self.kept.append((batch, key, phases, ds_id))
        return out

    def on_batch_end(self, data: Data) -> None:
        """Looks whether the update was skipped."""
        step = self.estimator.train_step
        losses = {name: plain(data[name]) for name in step.losses if name in data}
        if not plain(data["streak"]) or (self._scaled() and not any(map(_bad, losses.values()))):
            return
        if "scaler" in step.state:
            step.state["scaler"]["scale"] = step.state["scaler"]["scale"] * 2  # that of this step
        found: list[Origin] = []
        for batch, key, phases, ds_id in self.kept:
            found = origins(step, batch, key, self.estimator.step - 1, phases, ds_id)
            if found[0].part != "nothing":
                self._write(losses, found, batch, key)
                break
        told = ", ".join(f"{name} {value:.6g}" for name, value in losses.items())
        raise UsageError(f"step {self.estimator.step} isn't finite ({told}). {' '.join(map(str, found))}")

    def _scaled(self) -> bool:
        """Whether the loss scale, which was halved, can still fall."""
        scaler = self.estimator.train_step.state.get("scaler")
        return scaler is not None and plain(scaler["scale"]) > 1

    def _write(self, losses: dict[str, float], found: list[Origin], batch: dict[str, mx.array], key: mx.array) -> None:
        workspace = self.estimator.workspace
        if workspace is None:
            return
        folder: Path = workspace.folder
        report = {"step": self.estimator.step, "losses": {name: str(value) for name, value in losses.items()},
                  "origins": [vars(one) for one in found]}  # fmt: skip
        (folder / "nan_origin.json").write_text(json.dumps(report, indent=2) + "\n")
        mx.save_safetensors(str(folder / "nan_batch.safetensors"), snapshot({"batch": batch, "key": key}))
        workspace.say(f"wrote {folder}/nan_origin.json and nan_batch.safetensors")

    def on_close(self) -> None:
        """Lets go of the step."""
        self.held.close()
        self.kept.clear()


def _bad(value: Any) -> bool:
    return not abs(value) < float("inf")
