"""What becomes of a step whose loss or gradient is not finite: everything as it was, and a smaller loss scale.

Also the sums of a window of micro-batches, which one such drops as a whole.
"""

from typing import Any

import mlx.core as mx

from runtime.op import Batch

FIRST_SCALE, GROW_AFTER = 2.0**15, 2000  # fp16 loss scaling


def guarded(ok: mx.array, moved: Batch, held: Batch) -> Batch:
    """where(ok, new, held) of every array, built so that mx.compile makes one kernel of a leaf's whole update.

    A leaf's moments and averages are its inputs and outputs of their own: the compiler fuses such an array only into a
    kernel that holds all its readers. So the leaf that is kept when ok is false comes by way of theirs, to equal value.
    """
    kept = {path: mx.where(ok, new, held[path]) for path, new in moved.items() if not path.startswith("models.")}
    for path in moved.keys() - kept.keys():
        leaf, last = f".{path.split('.', 2)[2]}", held[path]
        for other, array in kept.items():
            if (f"{leaf}." in other or other.endswith(leaf)) and (array.shape, array.dtype) == (last.shape, last.dtype):
                last = mx.where(ok, array, last)
        kept[path] = mx.where(ok, moved[path], last)
    return kept


def accumulated(
    sums: dict[str, Any], gradients: dict[str, Batch], finite: mx.array, last: bool, count: int
) -> tuple[dict[str, Batch], mx.array]:
    """Adds a micro-batch's gradients to the window's sums (of means over `count`), cleared on the last one.

    Returns the sums, and whether the whole window is finite so far, 0-d.
    """
    window = sums["finite"] & finite
    totals = {
        source: {path: sums["gradients"][source][path] + g / count for path, g in grads.items()}
        for source, grads in gradients.items()
    }
    for source, grads in totals.items():
        sums["gradients"][source].update({p: mx.zeros_like(g) if last else g for p, g in grads.items()})
    sums["finite"] = mx.array(True) if last else window
    return totals, window


def first_scaler() -> Batch:
    """The state of fp16 loss scaling before the first step: the scale, and finite steps in a row, both 0-d."""
    return {"scale": mx.array(FIRST_SCALE), "good": mx.array(0, mx.int32)}


def advance(scaler: Batch, finite: mx.array) -> None:
    """Halves the scale, 0-d (down to 1), after a step that was not finite, doubles it after GROW_AFTER finite ones."""
    good = mx.where(finite, scaler["good"] + 1, 0)
    grow = good >= GROW_AFTER
    factor = mx.where(finite, mx.where(grow, 2.0, 1.0), 0.5)
    scaler["scale"], scaler["good"] = mx.maximum(scaler["scale"] * factor, 1.0), mx.where(grow, 0, good)
