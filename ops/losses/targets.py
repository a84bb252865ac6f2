"""Targets of a loss in the shape of its predictions: class numbers and one-hot rows count alike."""

import mlx.core as mx

from runtime.errors import UsageError


def trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape whose axes of length 1, but for the first axis, are left out."""
    return (shape[0], *(n for n in shape[1:] if n != 1)) if shape else ()


def is_classes(y_true: mx.array, y_pred: mx.array) -> bool:
    """Whether y_true (B, ...) or (B, ..., 1) numbers the classes of y_pred (B, ..., C), C > 1."""
    places = y_pred.shape[:-1]
    return y_pred.ndim > 1 and y_pred.shape[-1] > 1 and y_true.shape in (places, (*places, 1))


def in_range(classes: mx.array, count: int) -> mx.array:
    """1 where a class number (B, ...) is one of 0..count-1, else NaN: a wrong label must not train anything unseen."""
    return mx.where((classes >= 0) & (classes < count) & (classes == mx.floor(classes)), 1.0, mx.nan)


def matched(y_true: mx.array, y_pred: mx.array, binary: bool = False) -> mx.array:
    """Targets as floats of y_pred's shape (B, ..., C) from class numbers (B, ...) or from values of that shape.

    binary: y_pred is about one class, so pairs (B, ..., 2) of "no" and "yes" are targets too. Class numbers other
    than 0..C-1 become NaN. Raises UsageError where the shapes don't fit.
    """
    if is_classes(y_true, y_pred):
        classes = y_true.reshape(y_pred.shape[:-1])[..., None]
        hot = (classes == mx.arange(y_pred.shape[-1])).astype(mx.float32)
        return hot * in_range(classes, y_pred.shape[-1])
    if binary and y_true.ndim > 1 and y_true.shape[-1] == 2 and trimmed(y_true.shape[:-1]) == trimmed(y_pred.shape):
        y_true = y_true[..., 1]
    if trimmed(y_true.shape) != trimmed(y_pred.shape):
        raise UsageError(
            f"targets of shape {y_true.shape} don't fit predictions of shape {y_pred.shape}; needed: that shape, or "
            f"class numbers of shape {y_pred.shape[:-1]}."
        )
    return y_true.reshape(y_pred.shape).astype(mx.float32)


def per_row(values: mx.array) -> mx.array:
    """The mean of each row (B,) of values (B, ...)."""
    return values.reshape(values.shape[0], -1).mean(axis=1)
