"""What generative objectives with conditions share: label dropout while training, guidance while sampling."""

import inspect
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from runtime.errors import UsageError
from runtime.op import Batch, Objective


class Conditional(Objective):
    """An objective whose model takes `conditions`, batch keys, by name.

    "label" and "augment" (what an augmentation did, B x 9) are the usual ones; sampling leaves "augment" out, which
    models take as zeros.
    label_dropout: share of labels replaced by -1, "no class", in training. guidance: classifier-free guidance scale w
    when sampling, f_none + w (f_label - f_none) (arXiv 2207.12598); 1 is none. Both need "label" among the conditions.
    """

    def __init__(self, conditions: tuple | list = (), label_dropout: float = 0.0, guidance: float = 1.0):
        self.conditions, self.label_dropout, self.guidance = tuple(conditions), label_dropout, guidance
        if not 0 <= label_dropout < 1:
            raise UsageError(f"{type(self).__name__}: label_dropout must lie in [0, 1), got {label_dropout}.")
        if (label_dropout or guidance != 1) and "label" not in self.conditions:
            raise UsageError(
                f"{type(self).__name__}: label_dropout={label_dropout} and guidance={guidance} need conditions to hold "
                f"'label', got {list(self.conditions)}."
            )

    def check(self, model: nn.Module) -> None:
        """Raises UsageError for a model that does not take the conditions, or is no field in time."""
        if hasattr(type(model), "encode"):
            raise UsageError(f"{type(model).__name__} is an autoencoder, which {type(self).__name__} can't train; "
                             "give loss=autoencoder.")  # fmt: skip
        takes = inspect.signature(type(model).__call__).parameters
        anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
        if "times" not in takes and not anything:
            raise UsageError(f"{type(self).__name__} trains fields in time, networks that take times, such as "
                             f"model=mlp; {type(model).__name__} takes none.")  # fmt: skip
        lacks = [name for name in self.conditions if name not in takes]
        if lacks and not anything:
            raise UsageError(f"loss.conditions holds {', '.join(lacks)}, which {type(model).__name__} does not take; "
                             f"it takes {', '.join([*takes][2:])}.")  # fmt: skip

    def given(self, batch: Batch, training: bool, key: mx.array) -> Batch:
        """The conditions of a batch; in training some labels are dropped."""
        if lacks := [name for name in self.conditions if name not in batch]:
            hint = " (dataloaders=cifar10_augmented gives augment)" if "augment" in lacks else ""
            raise UsageError(f"loss.conditions holds {', '.join(lacks)}, which the data do not give{hint}; "
                             f"they give {', '.join(sorted(batch))}.")  # fmt: skip
        given = {name: batch[name] for name in self.conditions}
        if training and self.label_dropout:
            dropped = mx.random.bernoulli(self.label_dropout, given["label"].shape, key=key)
            given["label"] = mx.where(dropped, -1, given["label"])
        return given

    def guided(self, call: Callable[[Batch], mx.array], conditions: Batch) -> mx.array:
        """call(conditions), led away from call(no class) where guidance is not 1 and there are labels."""
        if self.guidance == 1 or "label" not in conditions:
            return call(conditions)
        none = call(unlabelled(conditions))
        return none + self.guidance * (call(conditions) - none)


def unlabelled(conditions: Batch) -> Batch:
    """The same conditions with every label -1, "no class"."""
    return {**conditions, "label": mx.full(conditions["label"].shape, -1)}


def like(out: mx.array, x: mx.array) -> mx.array:
    """What a model gave for the states x (B, ...), which must be of their shape: broadcasting would train anything."""
    if out.shape != x.shape:
        raise UsageError(f"the model gives an array of shape {out.shape} for states of shape {x.shape}; needed: the "
                         "same shape.")  # fmt: skip
    return out


def source_points(batch: Batch, key: mx.array) -> mx.array:
    """x0 (B, ...): the batch's own where it has them, else standard normal noise."""
    return batch["x0"] if "x0" in batch else mx.random.normal(batch["x"].shape, key=key)


def row_means(x: mx.array) -> mx.array:
    """The mean over everything but the rows, (B, ...) -> (B,) float32."""
    return x.astype(mx.float32).reshape(x.shape[0], -1).mean(axis=1)


def masked_mean(rows: mx.array, batch: Batch) -> mx.array:
    """The mean of per-row values (B,), over the rows that batch["mask"] marks where there is a mask."""
    if "mask" not in batch:
        return rows.mean()
    return (rows * batch["mask"]).sum() / mx.maximum(batch["mask"].sum(), 1)
