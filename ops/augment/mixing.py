"""MixUp and CutMix: every sample is mixed with its neighbour in the batch, and so are their labels."""

from collections.abc import Sequence

import mlx.core as mx

from ops.augment.augment import Drawn
from ops.augment.beta import beta_draws
from ops.augment.boxes import inside
from runtime.errors import UsageError
from runtime.op import Context, TensorOp


class Mix(TensorOp):
    """Mixes sample i of data and labels with sample i - 1 of the batch, the larger part being sample i's.

    inputs, outputs: the keys of the data and of its labels. Labels are one-hot, (B, classes), or integers where
    `num_classes` is given. A part lambda ~ Beta(alpha, alpha) is replaced by max(lambda, 1 - lambda), as
    FastEstimator does. A subclass gives `draw` and `change`.
    """

    def __init__(self, inputs, outputs, mode="train", ds_id=None, alpha: float = 1.0, num_classes: int | None = None):
        super().__init__(inputs=inputs, outputs=outputs, mode=mode, ds_id=ds_id)
        if len(self.inputs) != 2 or len(self.outputs) != 2:
            raise UsageError(
                f"{type(self).__name__} needs two inputs and two outputs, data and labels; "
                f"got {list(self.inputs)} and {list(self.outputs)}."
            )
        if alpha <= 0:
            raise UsageError(f"{type(self).__name__}: alpha must be above 0, got {alpha}.")
        self.alpha, self.num_classes = alpha, num_classes

    def draw(self, shape: tuple[int, ...], key: mx.array) -> Drawn:
        """The random numbers for data of `shape`; "part" (B or 1,) is sample i's share of its label."""
        raise NotImplementedError

    def change(self, x: mx.array, drawn: Drawn) -> mx.array:
        """The mixed data."""
        raise NotImplementedError

    def forward(self, data: list[mx.array], state: Context) -> list[mx.array]:
        """Mixed data, and labels (B, classes) float32."""
        x, y = data
        y = self.labels(y)
        drawn = self.draw(x.shape, state.key)
        return [self.change(x, drawn), blended(y, drawn["part"])]

    def labels(self, y: mx.array) -> mx.array:
        """Labels as numbers that can be mixed."""
        if mx.issubdtype(y.dtype, mx.floating):
            return y
        if y.ndim > 1 and y.shape[-1] > 1:
            return y.astype(mx.float32)
        if self.num_classes is None:
            raise UsageError(
                f"{type(self).__name__} can't mix integer labels of shape {tuple(y.shape)}: "
                "give num_classes, or one-hot labels."
            )
        return (y.reshape(-1, 1) == mx.arange(self.num_classes)).astype(mx.float32)

    def part(self, shape: tuple[int, ...], key: mx.array) -> mx.array:
        """Draws of max(lambda, 1 - lambda)."""
        drawn = beta_draws(self.alpha, shape, key)
        return mx.maximum(drawn, 1 - drawn)


class MixUpBatch(Mix):
    """MixUp of data (B, ...) and labels; Zhang et al., arXiv 1710.09412. shared_beta: one lambda for the batch."""

    def __init__(
        self,
        inputs: Sequence[str],
        outputs: Sequence[str],
        mode="train",
        ds_id=None,
        alpha: float = 1.0,
        shared_beta: bool = False,
        num_classes: int | None = None,
    ):
        super().__init__(inputs, outputs, mode, ds_id, alpha, num_classes)
        self.shared_beta = shared_beta

    def draw(self, shape: tuple[int, ...], key: mx.array) -> Drawn:
        """The parts, (B,), or (1,) if shared."""
        return {"part": self.part((1 if self.shared_beta else shape[0],), key)}

    def change(self, x: mx.array, drawn: Drawn) -> mx.array:
        """part x + (1 - part) x of the sample before."""
        if not mx.issubdtype(x.dtype, mx.floating):
            raise UsageError(f"MixUpBatch needs data of a floating type, got {x.dtype}.")
        return blended(x, drawn["part"])


class CutMixBatch(Mix):
    """CutMix of images (B, H, W, C) and labels; Yun et al., arXiv 1905.04899.

    A box with 1 - lambda of the image's area, its centre uniform, is taken from the sample before; what hangs over the
    edge is cut off, its edges are rounded to pixels, and the labels are mixed by the area that is left, exactly.
    shared_box: one box for the batch, as FastEstimator has it; otherwise one for each image.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        outputs: Sequence[str],
        mode="train",
        ds_id=None,
        alpha: float = 1.0,
        shared_box: bool = True,
        num_classes: int | None = None,
    ):
        super().__init__(inputs, outputs, mode, ds_id, alpha, num_classes)
        self.shared_box = shared_box

    def draw(self, shape: tuple[int, ...], key: mx.array) -> Drawn:
        """The box's edges "top", "bottom", "left", "right" in pixels and the "part" outside of it, (B,) or (1,)."""
        if len(shape) != 4:
            raise UsageError(f"CutMixBatch needs images (B, H, W, C), got shape {tuple(shape)}.")
        count = 1 if self.shared_box else shape[0]
        size, place = mx.random.split(key)
        half = 0.5 * mx.sqrt(1 - self.part((count,), size))
        centre = mx.random.uniform(shape=(2, count), key=place)
        lengths = mx.array(shape[1:3])[:, None]
        first = mx.round(mx.maximum((centre - half) * lengths, 0))
        last = mx.round(mx.minimum((centre + half) * lengths, lengths))
        area = mx.prod(last - first, axis=0)
        return {"top": first[0], "bottom": last[0], "left": first[1], "right": last[1],
                "part": 1 - area / (shape[1] * shape[2])}  # fmt: skip

    def change(self, x: mx.array, drawn: Drawn) -> mx.array:
        """The images with their neighbour's box."""
        box = inside(drawn["top"], drawn["bottom"], drawn["left"], drawn["right"], x.shape[1], x.shape[2])
        return mx.where(box[..., None], neighbour(x), x)


def neighbour(x: mx.array) -> mx.array:
    """Sample i - 1 of x (B, ...) in the place of sample i, the last one in the first's."""
    return mx.concatenate([x[-1:], x[:-1]])


def blended(x: mx.array, part: mx.array) -> mx.array:
    """part x + (1 - part) neighbour, `part` (B,) or (1,), in x's type."""
    part = part.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)
    return part * x + (1 - part) * neighbour(x)
