"""Traces that save or show the pictures which other traces leave: heat maps, grids, charts, or plain images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.instantiate import locate
from runtime.panels import Chart, Panel
from traces.io.batch_display import DRAW, save
from traces.trace import Trace
from training.data import as_numpy


class ImageSaver(Trace):
    """Saves what earlier traces wrote under `inputs` at the end of an epoch or of the training.

    Panels and charts become <key>_<mode>_epoch_<n>.png, images (n, H, W, C) one file each, ..._elem_<i>.png.
    draw(display, path): or its name, as a configuration's `_target_`.
    """

    folder: Path | None

    def __init__(self, inputs: str | Sequence[str], save_dir: str | Path = ".",
                 mode: str | Sequence[str] | None = ("eval", "test"), draw: Callable | str = DRAW):  # fmt: skip
        super().__init__(inputs, mode=mode)
        self.folder, self.draw = Path(save_dir), locate(draw) if isinstance(draw, str) else draw

    def on_epoch_end(self, data: Any) -> None:
        """Saves what this epoch left."""
        self._save(data)

    def on_end(self, data: Any) -> None:
        """Saves what the traces left at the end."""
        self._save(data)

    def _save(self, data: Any) -> None:
        for key in self.inputs:
            if key not in data:
                continue
            shown, name = data[key], f"{key}_{data.mode}_epoch_{self.estimator.epoch}".replace("/", "_")
            if isinstance(shown, Chart | Panel) or (isinstance(shown, list | tuple) and isinstance(shown[0], Panel)):
                save(shown, self.folder, name, self.draw)
                continue
            images = as_numpy(shown)
            for index, image in enumerate(images if np.ndim(images) == 4 else [images]):
                save(image, self.folder, f"{name}_elem_{index}", self.draw)


class ImageViewer(ImageSaver):
    """Shows the pictures instead: in a notebook below its cell, elsewhere as the path of a temporary file."""

    def __init__(self, inputs: str | Sequence[str], mode: str | Sequence[str] | None = ("eval", "test"),
                 draw: Callable | str = DRAW):  # fmt: skip
        super().__init__(inputs, mode=mode, draw=draw)
        self.folder = None
