"""Computes the rows of a batch in two halves at once where MLX would use one core of a CPU.

MLX's CPU backend computes each stream in one thread. A model whose rows don't meet is called for each half of the batch
on a stream of its own; MLX then computes values, gradients and jvps of the halves at the same time, and sums the
weights' gradients. Losses, metrics and all other ops see the whole batch as before. Results differ from those of one
stream by rounding, and not from run to run.

A model declares by a class attribute `independent_rows = True` that, while no module in it draws random numbers or
takes statistics of a batch, a row of what it gives depends on the same row of each argument alone.
MLX_LAB_STREAMS=1 calls every model once, a larger number calls it in so many parts.
MLX sends operations out in an order that goes down one branch of a graph after another once more than 20 wait, and it
holds few back: one stream would be empty while the other is full. MLX_BFS_MAX_WIDTH, unless set, becomes WIDTH here, so
that the branches take turns.
"""

import ctypes
import os
import sys
from collections.abc import Sequence
from typing import Any

import runtime.blas  # must come before mlx.core

# isort: split
import mlx.core as mx
import mlx.nn as nn

from runtime.calls import modules_in, watched, watching
from runtime.errors import UsageError
from runtime.heap import cpu_wheel
from runtime.trees import count_parameters, leaves, tree_map
from runtime.work import product

LEAST = 60e6  # operations of products in one call, below which a second call's operations cost more than they save
REUSE = 500  # operations a weight, below which its second gradient does
MANY = 64  # rows of a part, of which one more or less is nothing
WIDTH = 100  # more branches at once also hold more memory: 400 gains little, by 20 LeNet's step takes a quarter longer
DRAWING = (nn.BatchNorm, nn.Dropout, nn.Dropout2d, nn.Dropout3d)  # MLX's own, in training
WHEEL = sys.platform == "linux" and cpu_wheel()
if WHEEL:  # MLX reads it when it first computes; 0: what is set stays
    ctypes.CDLL(None).setenv(b"MLX_BFS_MAX_WIDTH", str(WIDTH).encode(), 0)

_more: list[Any] = []  # streams beside the default one; each thread has its own of them


def parts() -> int:
    """In how many parts a batch is computed here: 2 on a Linux CPU with cores to spare for it, else 1.

    Matrix products that take several threads each (OPENBLAS_NUM_THREADS, by default half of the cores) leave none: they
    wait for each other, and two parts of LeNet's step take twice as long as with one thread.
    Raises UsageError for a MLX_LAB_STREAMS that is no positive number.
    """
    given = os.environ.get("MLX_LAB_STREAMS", "")
    if given and not (given.isdecimal() and int(given)):
        raise UsageError(f"MLX_LAB_STREAMS must be a positive number (1: whole batches), got {given!r}.")
    if mx.default_device() != mx.Device(mx.cpu) or not WHEEL:
        return 1
    return int(given) if given else 1 + (len(os.sched_getaffinity(0)) > 1 and runtime.blas.threads() == 1)


def streams(count: int) -> list[Any]:
    """The default stream and others, of the CPU."""
    while len(_more) < count - 1:
        _more.append(mx.new_thread_local_stream(mx.cpu))
    return [mx.default_stream(mx.cpu), *_more[: count - 1]]


def independent(model: Any) -> bool:
    """Whether the rows of what a model gives depend on the same rows of its arguments alone, in its present mode."""
    if not getattr(model, "independent_rows", False):
        return False
    return all(
        getattr(module, "independent_rows", True) and not (module.training and isinstance(module, DRAWING))
        for _, module in modules_in(model)
    )


def divided(model: Any) -> Any:
    """A model to call instead, whose batches are computed in `parts()`; the model itself where that can't be."""
    return Divided(model, parts()) if parts() > 1 and independent(model) else model


class Divided:
    """A model, of which large enough batches are computed in `count` parts at once; attributes are the model's own.

    Whole remain batches of too little work, calls with arrays of different lengths, and those that `runtime.calls`
    watches.
    """

    def __init__(self, model: Any, count: int):
        self._model, self._count = model, count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *args: Any, key: mx.array | None = None, **kwargs: Any) -> Any:
        """What the model gives, an array (B, ...) or a nest of them; a key is for dropout, which is off."""
        keyed = {} if key is None else {"key": key}
        lengths = {len(a) if a.ndim else 0 for _, a in leaves((args, kwargs))}
        rows = next(iter(lengths), 0)
        if len(lengths) != 1 or rows < self._count or watching():
            return self._model(*args, **keyed, **kwargs)
        whole, flops = counted(self._model, args, {**keyed, **kwargs})
        if flops < max(LEAST, REUSE * count_parameters(self._model)):
            return whole
        ends = cuts(rows, self._count)
        found = []
        for stream, start, end in zip(streams(self._count), ends, ends[1:], strict=False):
            with mx.stream(stream):
                given, named = tree_map(lambda a, own=slice(start, end): a[own], (args, kwargs))
                found.append(self._model(*given, **keyed, **named))
        return tree_map(lambda *own: mx.concatenate([*own]), *found)


def cuts(rows: int, count: int) -> list[int]:
    """Where `count` parts of `rows` begin and where the last ends; no two of many rows are of one length.

    mx.compile merges what equal parts have in common, such as a constant in their shape, also from one stream to the
    other, whose kernels then can't hold it: those of one part took four times as long as the other's.
    """
    shift = rows >= MANY * count
    return [rows * i // count + shift * i * (count - i) for i in range(count + 1)]


def counted(model: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, int]:
    """What the model gives, not computed yet, and the operations of its layers' products."""
    total = 0

    def add(_name: str, module: nn.Module, given: tuple, out: Any) -> Any:
        nonlocal total
        if given[0] and isinstance(out, mx.array):
            total += product(module, given[0][0], out) or 0
        return out

    with watched(dict(modules_in(model)), add):
        return model(*args, **kwargs), total
