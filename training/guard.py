"""The guard of an update: everything as it was where a loss or a gradient is not finite."""

import mlx.core as mx

from runtime.op import Batch


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
