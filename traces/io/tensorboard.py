"""TensorBoard's event files, written by the tensorboard package's own writer."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UsageError
from runtime.instantiate import locate
from runtime.op import as_tuple
from runtime.trees import flatten
from traces.io.graph import Node, flow
from traces.trace import Trace
from training.data import as_numpy, plain
from training.frequency import in_steps

BINS = 30


class TensorBoard(Trace):
    """Writes scalars, images, weight histograms and the graph from data to traces below `log_dir`, a run a mode.

    update_freq: how often the training losses of a step are written ("10s", 10, "1e" or None for never); everything
    that is logged under another name is written when it is logged. write_images: batch keys (B, H, W, C), of which the
    first `max_images` are written as often, and for evaluations their first batch's. weight_histogram_freq: of every
    trainable leaf. A resumed run hides events of later steps. encode(image) -> PNG bytes, or its name. Needs the extra
    `tensorboard`.
    """

    def __init__(self, log_dir: str | Path = "logs", update_freq: str | int | None = 100, write_graph: bool = True,
                 write_images: str | Sequence[str] = (), weight_histogram_freq: str | int | None = None,
                 max_images: int = 8, mode: str | Sequence[str] | None = None,
                 encode: Callable | str = "visualizers.panels.png"):  # fmt: skip
        super().__init__(as_tuple(write_images), mode=mode)
        self.folder, self.frequencies, self.write_graph = (
            Path(log_dir),
            (update_freq, weight_histogram_freq),
            write_graph,
        )
        self.max_images = max_images
        self.encode: Callable = locate(encode) if isinstance(encode, str) else encode
        self.writers: dict[str, Any] = {}
        self.steps: list[int | None] = [None, None]
        self.begun = 0  # the step at which this sitting starts
        self.first = False  # the first batch of an evaluation

    def on_begin(self, data: Any) -> None:
        """Reads the frequencies; draws the graph at the start of a training."""
        length, self.begun = self.estimator.steps_per_epoch, self.estimator.step
        self.steps = [in_steps(every, length, "update_freq") for every in self.frequencies]
        if self.write_graph and self.estimator.step == 0 and data.mode == "train":
            self._writer("train").add_graph(graph(flow(self.estimator, "train")))

    def on_epoch_begin(self, data: Any) -> None:
        """Remembers that an evaluation's first batch comes."""
        self.first = data.mode != "train"

    def on_batch_end(self, data: Any) -> None:
        """Writes losses, images and histograms where they are due."""
        train = data.mode == "train"
        update, histograms = (train and bool(n) and self.estimator.step % n == 0 for n in self.steps)
        if update:
            losses = [name for name in self.estimator.train_step.losses if name in data]
            self._scalars("train", {name: plain(data[name]) for name in losses})
        if update or self.first:
            self._images(data)
        self.first = False
        if histograms:
            for name, model in self.estimator.network.models.items():
                leaves = flatten(model.trainable_parameters())
                values = [{"tag": f"{name}/{path}", "histo": histogram(as_numpy(w))} for path, w in leaves.items()]
                self._write("train", values)

    def on_log(self, values: dict[str, Any]) -> None:
        """Writes what others log, but for the losses of training steps."""
        own = {f"train/{name}" for name in self.estimator.train_step.losses} if self.steps[0] else set()
        for name, value in values.items():
            mode, slash, key = name.partition("/")
            if not (slash and mode in ("train", "eval", "test")):
                mode, key = "train", name
            if name not in own and isinstance(value, int | float):
                self._scalars(mode, {key: value})

    def on_close(self) -> None:
        """Closes the files."""
        for writer in self.writers.values():
            writer.close()
        self.writers = {}

    def _scalars(self, mode: str, values: dict[str, float]) -> None:
        self._write(mode, [{"tag": name, "simple_value": value} for name, value in values.items()])

    def _images(self, data: Any) -> None:
        for key in self.inputs:
            values = []
            for index, image in enumerate(as_numpy(data[key])[: self.max_images]):
                height, width, *channels = image.shape
                facts = {"height": height, "width": width, "colorspace": channels[0] if channels else 1}
                values.append({"tag": f"{key}/{index}", "image": {**facts, "encoded_image_string": self.encode(image)}})
            self._write(data.mode, values)

    def _write(self, mode: str, values: list[dict[str, Any]]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        summary = Summary(value=[Summary.Value(**value) for value in values])
        self._writer(mode).add_event(Event(wall_time=time.time(), step=self.estimator.step, summary=summary))

    def _writer(self, mode: str) -> Any:
        if mode not in self.writers:
            self.writers[mode] = Writer(self.folder / mode, self.begun)
        return self.writers[mode]


class Writer:
    """An event file in `folder`; events of steps after `step` that earlier sittings wrote there are hidden."""

    def __init__(self, folder: Path, step: int):
        try:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ModuleNotFoundError as error:
            raise UsageError(
                f"TensorBoard needs the package {error.name!r}: pip install 'mlx-lab[tensorboard]'."
            ) from error
        earlier = folder.is_dir() and any(folder.iterdir())
        folder.mkdir(parents=True, exist_ok=True)
        self._file = EventFileWriter(str(folder), filename_suffix=f".{step}")
        if earlier:
            start = SessionLog(status=SessionLog.SessionStatus.START)
            self.add_event(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def add_event(self, event: Any) -> None:
        """Queues an event."""
        self._file.add_event(event)

    def add_graph(self, nodes: list[dict[str, Any]]) -> None:
        """Writes the graph."""
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.graph_pb2 import GraphDef  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.node_def_pb2 import NodeDef  # pyright: ignore[reportAttributeAccessIssue]

        definition = GraphDef(node=[NodeDef(**node) for node in nodes])
        self.add_event(Event(wall_time=time.time(), graph_def=definition.SerializeToString()))

    def close(self) -> None:
        """Writes the queue and closes the file."""
        self._file.flush()
        self._file.close()


def graph(nodes: Sequence[Node]) -> list[dict[str, Any]]:
    """A mode's nodes in TensorBoard's form: name, op and the names of those it reads from."""
    names = [re.sub(r"\W+", "_", f"{place}_{node.name}") for place, node in enumerate(nodes)]
    return [
        {"name": name, "op": node.name.split("(")[0], "input": list(dict.fromkeys(names[i] for i, _ in node.sources))}
        for name, node in zip(names, nodes, strict=True)
    ]


def histogram(values: np.ndarray) -> dict[str, Any]:
    """A histogram of an array's (...) values in 30 equal bins, in TensorBoard's form; only of finite ones."""
    values = values[np.isfinite(values)].astype(np.float64).reshape(-1)
    counts, edges = np.histogram(values, BINS)
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    return {"min": low, "max": high, "num": values.size, "sum": values.sum(), "sum_squares": values @ values,
            "bucket_limit": edges[1:].tolist(), "bucket": counts.tolist()}  # fmt: skip
