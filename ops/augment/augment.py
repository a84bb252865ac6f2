"""What every augmentation on the device shares: one draw for each image, the same for all inputs of the op."""

from collections.abc import Sequence

import mlx.core as mx

from runtime.errors import UsageError
from runtime.op import Context, TensorOp

Drawn = dict[str, mx.array]  # what was drawn for each image, first axis B


class Augment(TensorOp):
    """Changes every image of a batch (B, H, W, C) by numbers of its own, drawn from the op's key.

    Several inputs (an image and its mask) of one height and width get the same changes. prob: share of the images
    that are changed at all. A subclass gives `draw` and `change`.
    """

    def __init__(
        self,
        inputs: str | Sequence[str],
        outputs: str | Sequence[str],
        mode: str | Sequence[str] | None = "train",
        ds_id: str | Sequence[str] | None = None,
        prob: float = 1.0,
    ):
        super().__init__(inputs=inputs, outputs=outputs, mode=mode, ds_id=ds_id)
        self.prob = within(self, "prob", prob, 0, 1)

    def draw(self, shape: tuple[int, ...], key: mx.array) -> Drawn:
        """The random numbers for images of `shape` (B, H, W, C)."""
        raise NotImplementedError

    def change(self, x: mx.array, drawn: Drawn) -> mx.array:
        """Images (B, H, W, C) after what was drawn."""
        raise NotImplementedError

    def forward(self, data: mx.array | list[mx.array], state: Context) -> mx.array | list[mx.array]:
        """The changed images, one array for each input."""
        several = isinstance(data, list)
        images = data if several else [data]
        for x in images:
            if x.ndim != 4:
                raise UsageError(f"{type(self).__name__} needs images (B, H, W, C), got shape {tuple(x.shape)}.")
        draws, chance = mx.random.split(state.key)
        drawn = self.draw(images[0].shape, draws)
        changed = [self.change(x, drawn) for x in images]
        if self.prob < 1:
            now = mx.random.uniform(shape=(len(images[0]), 1, 1, 1), key=chance) < self.prob
            changed = [mx.where(now, new, old) for new, old in zip(changed, images, strict=True)]
        return changed if several else changed[0]


def within(op: TensorOp, name: str, value: float, low: float, high: float) -> float:
    """The value if it lies in [low, high]; UsageError otherwise."""
    if not low <= value <= high:
        raise UsageError(f"{type(op).__name__}: {name} must lie in {low}..{high}, got {value}.")
    return value


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """One number for both, or (height, width)."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def each(values: mx.array) -> mx.array:
    """Numbers (B,) as (B, 1, 1, 1), to go with images."""
    return values.reshape(-1, 1, 1, 1)
