"""Files read in the pipeline: images, MATLAB's arrays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.ops.each import EachOp
from dataloaders.ops.numpy_op import Names, NumpyOp
from runtime.errors import UsageError
from runtime.op import as_tuple

COLORS = {"color": "RGB", "gray": "L", "grey": "L", 1: "RGB", 0: "L"}  # 1 and 0: OpenCV's IMREAD_COLOR, _GRAYSCALE


class ReadImage(EachOp):
    """Paths to images (H, W, 3) uint8 in RGB, or (H, W, 1) with color_flag="gray"; parent_path goes before each path.

    color_flag: "color", "gray" or "grey", or OpenCV's 1 and 0 for them.
    """

    def __init__(self, inputs: Names, outputs: Names, mode: Names = None, ds_id: Names = None, parent_path: str = "",
                 color_flag: str | int = "color"):  # fmt: skip
        super().__init__(inputs, outputs, mode, ds_id)
        if color_flag not in COLORS:
            raise UsageError(
                f"ReadImage: color_flag must be one of {', '.join(map(repr, COLORS))}, got {color_flag!r}."
            )
        self.parent_path, self.color_flag = parent_path, color_flag

    def one(self, value: Any) -> np.ndarray:
        """The image; UsageError for a file that is none."""
        from PIL import Image

        file = Path(self.parent_path) / str(value)
        try:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert(COLORS[self.color_flag]))
        except OSError as error:
            raise UsageError(f"{file} cannot be read as an image ({error}).") from error
        return pixels if pixels.ndim == 3 else pixels[..., None]


class ReadMat(NumpyOp):
    """A path to a MATLAB file (before version 7.3) as the arrays `mat_keys` in it, by default the names in `outputs`.

    An array has at least two axes there, so a vector comes as (1, N). parent_path goes before the path.
    """

    def __init__(self, inputs: str, outputs: str | Sequence[str], mat_keys: str | Sequence[str] | None = None,
                 mode: Names = None, ds_id: Names = None, parent_path: str = ""):  # fmt: skip
        super().__init__(inputs, list(as_tuple(outputs)), mode, ds_id)
        self.mat_keys, self.parent_path = as_tuple(mat_keys) or self.outputs, parent_path
        if len(self.mat_keys) != len(self.outputs):
            raise UsageError(f"ReadMat needs as many mat_keys as outputs, got {self.mat_keys} and {self.outputs}.")

    def forward(self, data: Any, state: Any) -> list[np.ndarray]:
        """The arrays in the order of the outputs; UsageError for a file that can't be read or lacks one."""
        from scipy.io import loadmat

        file = Path(self.parent_path) / str(data)
        try:
            found = loadmat(file)
        except (OSError, ValueError, NotImplementedError) as error:
            raise UsageError(f"{file} cannot be read as a MATLAB file ({error}).") from error
        if missing := [name for name in self.mat_keys if name not in found]:
            has = ", ".join(name for name in found if not name.startswith("__"))
            raise UsageError(f"{file} has no {', '.join(missing)}; it has {has}.")
        return [found[name] for name in self.mat_keys]
