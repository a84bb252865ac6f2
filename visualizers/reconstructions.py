"""Pictures of what an autoencoder makes of held-out images; what configs and traces name."""

from pathlib import Path

import mlx.core as mx
import numpy as np

from runtime.run import Run
from visualizers.grids import save_grid

COLUMNS = 8


class ReconstructionPicture:
    """Rows of held-out images, each above its reconstruction from the mean of its latents, as `folder`/`name`.png.

    images: how many, the same at every step (from the training data where fewer are held out). seed: of the choice.
    """

    def __init__(self, images: int = 32, seed: int = 0):
        self.images, self.seed = images, seed

    def __call__(self, run: Run, folder: Path | str, name: str = "reconstructions") -> list[Path]:
        """The file written."""
        mode = "eval" if len(run.pipeline.sources.get("eval", ())) >= self.images else "train"
        x = run.pipeline.draw(mode, self.images, np.random.default_rng(self.seed))["x"]
        back = np.array(run.model(mx.array(x))[0].astype(mx.float32))
        return [save_grid(interleaved(x, back, COLUMNS), Path(folder) / f"{name}.png", COLUMNS)]


def interleaved(above: np.ndarray, below: np.ndarray, columns: int) -> np.ndarray:
    """Two sets (n, H, W, C) as rows of a grid in turn: `columns` of the first, then the same of the second."""
    starts = range(0, len(above), columns)
    return np.concatenate([rows[start : start + columns] for start in starts for rows in (above, below)])
