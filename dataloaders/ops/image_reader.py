"""Image files read in the pipeline."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from dataloaders.ops.numpy_op import Names, NumpyOp
from runtime.errors import UsageError


class ImageReader(NumpyOp):
    """Paths to images (H, W, 3) uint8 in RGB, or (H, W, 1) with color="gray"; parent_path goes before each path."""

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None, parent_path: str = "",
                 color: Literal["color", "gray"] = "color"):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        if color not in ("color", "gray"):
            raise UsageError(f'ImageReader: color must be "color" or "gray", got {color!r}.')
        self.parent_path, self.color = parent_path, color

    def forward(self, data: Any, state: Any) -> Any:
        """One image, or a list of them for a list of paths."""
        return [self._read(path) for path in data] if self.in_list else self._read(data)

    def _read(self, path: str) -> np.ndarray:
        from PIL import Image

        file = Path(self.parent_path) / str(path)
        try:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB" if self.color == "color" else "L"))
        except OSError as error:
            raise UsageError(f"{file} cannot be read as an image ({error}).") from error
        return pixels if pixels.ndim == 3 else pixels[..., None]
