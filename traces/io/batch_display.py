"""Traces that draw the samples of a batch: images, masks, boxes, keypoints and text, alone or as columns of a grid."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runtime.errors import UsageError
from runtime.instantiate import locate
from runtime.op import as_tuple
from runtime.panels import Panel
from traces.trace import Trace
from training.data import as_numpy
from training.frequency import in_steps

DRAW, SHOW = "visualizers.panels.save_display", "visualizers.panels.show"


class GridDisplay(Trace):
    """Draws columns, each a BatchDisplay, side by side as <title>_<mode>_<epoch>_<step or batch>.png.

    frequency: epochs ("2e") or steps ("10s" or 10; of an evaluation: its batches), None for every 100 steps.
    "2e" draws an epoch's last batch. batch_limit: samples shown at most. save_dir: None for a temporary folder, and the
    picture is shown. draw(panels, path): or its name, as a configuration's `_target_`.
    """

    def __init__(self, columns: Sequence["BatchDisplay"], batch_limit: int | None = None,
                 frequency: str | int | None = None, save_dir: str | Path | None = None, title: str = "grid",
                 mode: str | Sequence[str] | None = None, ds_id: str | Sequence[str] | None = None,
                 draw: Callable | str = DRAW):  # fmt: skip
        inputs = dict.fromkeys(key for column in columns for key in column.keys.values())
        super().__init__(tuple(inputs), mode=mode, ds_id=ds_id)
        self.columns, self.batch_limit, self.frequency, self.title = list(columns), batch_limit, frequency, title
        self.folder = None if save_dir is None else Path(save_dir)
        self.draw: Callable = locate(draw) if isinstance(draw, str) else draw
        self.steps: int | None = None
        self.batches, self.last = 0, {}

    def on_begin(self, data: Any) -> None:
        """Reads the frequency."""
        every = 100 if self.frequency is None else self.frequency
        self.by_epoch = str(every).endswith("e")
        self.steps = in_steps(str(every).replace("e", "s") if self.by_epoch else every, 1, "frequency")

    def on_epoch_begin(self, data: Any) -> None:
        """Counts an evaluation's batches anew."""
        self.batches, self.last = 0, {}

    def on_batch_end(self, data: Any) -> None:
        """Draws where a picture is due; keeps the batch for one that is due at the end of the epoch."""
        self.batches += 1
        if self.by_epoch:
            self.last = {key: data[key] for key in self.inputs}
        elif self.steps and (self.estimator.step if data.mode == "train" else self.batches) % self.steps == 0:
            self._draw(data, data.mode)

    def on_epoch_end(self, data: Any) -> None:
        """Draws the last batch of the epoch where it is due."""
        if self.by_epoch and self.last and self.steps and self.estimator.epoch % self.steps == 0:
            self._draw(self.last, data.mode)

    def _draw(self, data: Any, mode: str) -> None:
        at = self.estimator.step if mode == "train" else self.batches
        panels = [column.panel(data, self.batch_limit) for column in self.columns]
        save(panels, self.folder, f"{self.title}_{mode}_{self.estimator.epoch}_{at}", self.draw)


class BatchDisplay(GridDisplay):
    """Draws batches: a row a sample; a GridDisplay of itself alone, whose other arguments mean the same.

    image, text, masks, bboxes, keypoints: batch keys (what each must hold: runtime/panels.py); masks and keypoints also
    as (key, labels). mask_threshold: masks above it are 1, others 0. color_map: of gray images and of masks.
    """

    def __init__(self, image: str | None = None, text: str | None = None,
                 masks: str | tuple[str, Sequence[str]] | None = None, bboxes: str | None = None,
                 keypoints: str | tuple[str, Sequence[str]] | None = None, mask_threshold: float | None = None,
                 color_map: str | tuple[str, str] = ("gray", "turbo"), title: str | None = None,
                 batch_limit: int | None = None, frequency: str | int | None = None,
                 save_dir: str | Path | None = None, mode: str | Sequence[str] | None = None,
                 ds_id: str | Sequence[str] | None = None, draw: Callable | str = DRAW):  # fmt: skip
        mask_key, self.mask_labels = (masks, None) if isinstance(masks, str | None) else masks
        point_key, self.keypoint_labels = (keypoints, None) if isinstance(keypoints, str | None) else keypoints
        keys = {"images": image, "text": text, "masks": mask_key, "boxes": bboxes, "keypoints": point_key}
        self.keys = {part: key for part, key in keys.items() if key is not None}
        if not self.keys:
            raise UsageError("BatchDisplay needs a key of at least one of image, text, masks, bboxes and keypoints.")
        self.threshold, maps = mask_threshold, as_tuple(color_map)
        self.colours = (maps[0], maps[-1])
        title = title or next(iter(self.keys.values()))
        super().__init__([self], batch_limit, frequency, save_dir, title, mode, ds_id, draw)

    def panel(self, data: Any, limit: int | None = None) -> Panel:
        """The column of a batch."""
        parts: dict[str, Any] = {part: as_numpy(data[key])[:limit] for part, key in self.keys.items()}
        return Panel(self.title, **parts, mask_labels=self.mask_labels, keypoint_labels=self.keypoint_labels,
                     threshold=self.threshold, colours=self.colours)  # fmt: skip


def save(display: Any, folder: Path | None, name: str, draw: Callable, suffix: str = ".png") -> Path:
    """Draws into `folder`, or into a temporary one and shows it; returns the path."""
    if folder is not None:
        return draw(display, folder / f"{name}{suffix}")
    import tempfile

    path = draw(display, Path(tempfile.mkdtemp(prefix="pictures_")) / f"{name}{suffix}")
    locate(SHOW)(path)
    return path
