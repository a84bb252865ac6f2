"""The augmentation pipe of EDM (Karras et al., arXiv 2206.00364, appendix F.2), which tells the model what it did."""

import math

import numpy as np

from dataloaders.ops.warp import margins, warped
from runtime.errors import UsageError
from runtime.op import NumpyBatch

COLUMNS = ("xflip", "yflip", "scale", "rotation: cos - 1", "sin", "stretch: cos", "sin", "shift: x", "y")
Drawn = dict[str, np.ndarray]  # per image: xflip, yflip (0 or 1), scale, angle, stretch, axis, shift_x, shift_y


class AugmentPipe:
    """Flips, scales, rotates, stretches and shifts images "x" (B, H, W, C), each with its own probability.

    Writes "augment" (B, 9) float32, what was done (COLUMNS, all 0 for nothing), a condition for the model: it learns
    the plain images beside the changed ones, and samples with zeros. p: probability of each; the other first six
    are multipliers of p (0: never; 1e8: always, and a flip then comes up half of the time). scale_std, aniso_std: in
    octaves. rotate_frac_max: 1 is the full circle. aniso_rotate_prob: share of stretches along a tilted axis.
    translate_frac_std: over the image's size. The defaults are EDM's for CIFAR-10; py-meanflow's has yflip=0 and
    rotate_frac=0, and its six labels are the columns 0, 2, 5, 6, 7, 8.
    """

    def __init__(
        self,
        p: float = 0.12,
        xflip: float = 1e8,
        yflip: float = 1.0,
        scale: float = 1.0,
        rotate_frac: float = 1.0,
        aniso: float = 1.0,
        translate_frac: float = 1.0,
        scale_std: float = 0.2,
        rotate_frac_max: float = 1.0,
        aniso_std: float = 0.2,
        aniso_rotate_prob: float = 0.5,
        translate_frac_std: float = 0.125,
    ):
        multipliers = {"xflip": xflip, "yflip": yflip, "scale": scale, "rotate_frac": rotate_frac, "aniso": aniso,
                       "translate_frac": translate_frac}  # fmt: skip
        spreads = {"scale_std": scale_std, "rotate_frac_max": rotate_frac_max, "aniso_std": aniso_std,
                   "translate_frac_std": translate_frac_std}  # fmt: skip
        for name, value in {**multipliers, **spreads}.items():
            if value < 0:
                raise UsageError(f"AugmentPipe: {name} must be at least 0, got {value}.")
        for name, value in {"p": p, "aniso_rotate_prob": aniso_rotate_prob}.items():
            if not 0 <= value <= 1:
                raise UsageError(f"AugmentPipe: {name} must lie in 0..1, got {value}.")
        self.chances = {name: min(p * multiplier, 1.0) for name, multiplier in multipliers.items()}
        self.scale_std, self.aniso_std, self.translate_frac_std = scale_std, aniso_std, translate_frac_std
        self.rotate_frac_max, self.aniso_rotate_prob = rotate_frac_max, aniso_rotate_prob

    def __call__(self, batch: NumpyBatch, rng: np.random.Generator) -> NumpyBatch:
        """The batch with changed images and the key "augment"."""
        x = batch["x"]
        if x.ndim != 4:
            raise UsageError(f"AugmentPipe needs images (B, H, W, C), got 'x' of shape {x.shape}.")
        drawn = self.draw(len(x), rng)
        return {**batch, "x": self.changed(x, drawn), "augment": labels(drawn)}

    def defaults(self, batch: NumpyBatch) -> NumpyBatch:
        """What batches that are not augmented get: zeros."""
        return {"augment": np.zeros((len(batch["x"]), len(COLUMNS)), np.float32)}

    def draw(self, count: int, rng: np.random.Generator) -> Drawn:
        """What to do with each of `count` images; 0 where nothing."""

        def now(name: str, values: np.ndarray) -> np.ndarray:
            return np.where(rng.random(count) < self.chances[name], values, 0).astype(np.float32)

        def circle() -> np.ndarray:
            return rng.uniform(-math.pi, math.pi, count)

        shift = rng.random(count) < self.chances["translate_frac"]
        return {
            "xflip": now("xflip", rng.integers(2, size=count)),
            "yflip": now("yflip", rng.integers(2, size=count)),
            "scale": now("scale", rng.standard_normal(count)),
            "angle": now("rotate_frac", circle() * self.rotate_frac_max),
            "stretch": now("aniso", rng.standard_normal(count)),
            "axis": np.where(rng.random(count) < self.aniso_rotate_prob, circle(), 0).astype(np.float32),
            "shift_x": np.where(shift, rng.standard_normal(count), 0).astype(np.float32),
            "shift_y": np.where(shift, rng.standard_normal(count), 0).astype(np.float32),
        }

    def changed(self, x: np.ndarray, drawn: Drawn) -> np.ndarray:
        """Images (B, H, W, C) after what was drawn; those that only flip, or not even that, keep their exact values."""
        x = np.where(drawn["xflip"][:, None, None, None] == 1, x[:, :, ::-1], x)
        x = np.where(drawn["yflip"][:, None, None, None] == 1, x[:, ::-1], x)
        inverse = self.inverse(drawn, x.shape[1], x.shape[2])
        moved = (inverse != np.eye(3)).any(axis=(1, 2))
        if moved.any():
            x[moved] = warped(x[moved], inverse[moved], margins(inverse, x.shape[1], x.shape[2]))
        return x

    def inverse(self, drawn: Drawn, height: int, width: int) -> np.ndarray:
        """Maps from a result's pixel to its source's, (B, 3, 3): each step's inverse, the first step outermost."""
        zoom, stretch = np.exp2(drawn["scale"] * self.scale_std), np.exp2(drawn["stretch"] * self.aniso_std)
        axis = np.where(drawn["stretch"] == 0, 0, drawn["axis"])  # no rounding of a turn there and back
        across, down = (drawn[f"shift_{k}"] * self.translate_frac_std for k in "xy")
        return (
            scaling(1 / zoom, 1 / zoom)
            @ rotation(drawn["angle"])
            @ rotation(-axis) @ scaling(1 / stretch, stretch) @ rotation(axis)
            @ shifting(-across * width, -down * height)
        )  # fmt: skip


def labels(drawn: Drawn) -> np.ndarray:
    """What was done as numbers for the model, (B, 9) float32 in the order of COLUMNS."""
    angle, stretch, axis = drawn["angle"], drawn["stretch"], drawn["axis"]
    columns = [
        drawn["xflip"], drawn["yflip"], drawn["scale"], np.cos(angle) - 1, np.sin(angle),
        stretch * np.cos(axis), stretch * np.sin(axis), drawn["shift_x"], drawn["shift_y"],
    ]  # fmt: skip
    return np.stack(columns, axis=1).astype(np.float32)


def affine(*entries) -> np.ndarray:
    """The matrices (B, 3, 3) float32 with first rows [a, b, c] and [d, e, f], given as a to f: numbers or (B,)."""
    first = np.stack(np.broadcast_arrays(*entries), axis=-1).reshape(-1, 2, 3)
    last = np.broadcast_to(np.array([0, 0, 1]), (len(first), 1, 3))
    return np.concatenate([first, last], axis=1).astype(np.float32)


def scaling(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Scales x and y, (B, 3, 3)."""
    return affine(x, 0, 0, 0, y, 0)


def rotation(angle: np.ndarray) -> np.ndarray:
    """Turns x towards y by `angle` in radians, (B, 3, 3)."""
    c, s = np.cos(angle), np.sin(angle)
    return affine(c, -s, 0, s, c, 0)


def shifting(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Moves by (x, y) pixels, (B, 3, 3)."""
    return affine(1, 0, x, 0, 1, y)
