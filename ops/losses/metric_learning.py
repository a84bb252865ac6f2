"""Losses on distances between embeddings: triplet, contrastive, center, cosine."""

from collections.abc import Sequence

import mlx.core as mx

from ops.loss_op import LossOp
from ops.losses.targets import matched
from runtime.errors import UsageError
from runtime.op import Context

Names = str | Sequence[str] | None
TINY = 1e-12  # under square roots, whose slope at 0 is infinite


def distances(a: mx.array, b: mx.array) -> mx.array:
    """Euclidean distance of rows, (B,) from (B, ...)."""
    return mx.sqrt((a - b).square().reshape(a.shape[0], -1).sum(axis=1) + TINY)


class TripletLoss(LossOp):
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) (arXiv 1503.03832, eq. 1, without its squares).

    inputs: anchor, positive, negative (B, ...). squared: squared distances, as in the paper.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        outputs: str | Sequence[str],
        mode: Names = "!infer",
        ds_id: Names = None,
        average_loss: bool = True,
        margin: float = 1.0,
        squared: bool = False,
    ):
        super().__init__(inputs, outputs, mode, ds_id, average_loss)
        if len(self.inputs) != 3:
            raise UsageError(f"TripletLoss needs the inputs anchor, positive, negative, got {len(self.inputs)} names.")
        self.margin, self.squared = margin, squared

    def per_sample(self, data: list[mx.array], state: Context) -> mx.array:
        """(B,)."""
        anchor, positive, negative = data
        near, far = distances(anchor, positive), distances(anchor, negative)
        if self.squared:
            near, far = near.square(), far.square()
        return mx.maximum(near - far + self.margin, 0)


class ContrastiveLoss(LossOp):
    """y d^2 / 2 + (1 - y) max(0, margin - d)^2 / 2, y = 1 for pairs of one class (Hadsell et al., CVPR 2006, eq. 4).

    inputs: two embeddings (B, ...) and y, or their distance (B,) or (B, 1) and y. The paper's Y is 1 - y.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        outputs: str | Sequence[str],
        mode: Names = "!infer",
        ds_id: Names = None,
        average_loss: bool = True,
        margin: float = 1.0,
    ):
        super().__init__(inputs, outputs, mode, ds_id, average_loss)
        if len(self.inputs) not in (2, 3):
            raise UsageError(f"ContrastiveLoss needs 2 embeddings or a distance, and y; got {len(self.inputs)} names.")
        self.margin = margin

    def per_sample(self, data: list[mx.array], state: Context) -> mx.array:
        """(B,)."""
        *embeddings, y_true = data
        d = distances(*embeddings) if len(embeddings) == 2 else embeddings[0].reshape(-1)
        y = matched(y_true, d, binary=True)
        return 0.5 * (y * d.square() + (1 - y) * mx.maximum(self.margin - d, 0).square())


class CenterLoss(LossOp):
    """|x - c_y|^2 / 2 of features (B, D) and their class's center (Wen et al., ECCV 2016, eq. 2 to 4).

    inputs: features and targets, class numbers or one-hot rows. Centers (C, D) start at 0 and are no weights: each
    training step moves c_j by alpha sum(x - c_j) / (1 + n_j) over the n_j rows of class j, after the loss.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        outputs: str | Sequence[str],
        classes: int,
        features: int,
        alpha: float = 0.5,
        mode: Names = "!infer",
        ds_id: Names = None,
        average_loss: bool = True,
    ):
        super().__init__(inputs, outputs, mode, ds_id, average_loss)
        self.state = {"centers": mx.zeros((classes, features))}
        self.alpha = alpha

    def per_sample(self, data: list[mx.array], state: Context) -> mx.array:
        """(B,)."""
        x, y_true = data
        centers = self.state["centers"]
        if x.ndim != 2 or x.shape[1] != centers.shape[1]:
            raise UsageError(f"CenterLoss: features (B, {centers.shape[1]}) are needed, got {x.shape}.")
        targets = matched(y_true, mx.zeros((x.shape[0], centers.shape[0])))
        difference = x - targets @ centers
        if state.mode == "train":
            pull = targets.T @ mx.stop_gradient(difference) / (1 + targets.sum(axis=0))[:, None]
            self.state["centers"] = centers + self.alpha * pull
        return 0.5 * difference.square().sum(axis=1)


class CosineSimilarityLoss(LossOp):
    """1 - cos of the angle between y_pred and y_true (B, ...), class numbers counting as one-hot rows.

    epsilon: the least length of a row, so that rows of zeros have similarity 0 and a finite gradient.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        outputs: str | Sequence[str],
        mode: Names = "!infer",
        ds_id: Names = None,
        average_loss: bool = True,
        epsilon: float = 1e-6,
    ):
        super().__init__(inputs, outputs, mode, ds_id, average_loss)
        self.epsilon = epsilon

    def per_sample(self, data: list[mx.array], state: Context) -> mx.array:
        """(B,)."""
        y_pred, y_true = data
        a = y_pred.reshape(y_pred.shape[0], -1)
        b = matched(y_true, y_pred).reshape(a.shape)
        lengths = [mx.sqrt(mx.maximum(v.square().sum(axis=1), self.epsilon**2)) for v in (a, b)]
        return 1 - (a * b).sum(axis=1) / (lengths[0] * lengths[1])
