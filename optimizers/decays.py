"""FastEstimator's schedules: the learning rate as a pure function of a step or epoch that counts from 1.

`time` is a number (the rate is then a float) or an integer mx.array, traced or not (the rate is then float32 of its
shape). Meant for `LRScheduler(model, lambda step: cosine_decay(step, cycle_length=3750, init_lr=1e-3))`.
"""

import math
from typing import Any

import mlx.core as mx
import numpy as np

from runtime.errors import UsageError

FURTHEST = 2**31 - 1  # of a step


def cosine_decay(time, cycle_length: int, init_lr: float, min_lr: float = 1e-6, start: int = 1,
                 cycle_multiplier: int = 1, warmup: bool = False) -> Any:  # fmt: skip
    """Half cosines from init_lr to min_lr, one a cycle, each cycle cycle_multiplier times as long as the one before.

    Before `start`: init_lr, or with `warmup` a line from 0. arXiv 1608.03983, eq. 5, as FastEstimator counts it: the
    last step of a cycle has min_lr. Raises UsageError for lengths or multipliers below 1.
    """
    _check("cosine_decay", cycle_length=cycle_length, cycle_multiplier=cycle_multiplier)
    begun = time - start + 1
    if cycle_multiplier == 1:
        past = (_ceil_division(begun, cycle_length) - 1) * cycle_length
        length = cycle_length
    else:
        ends, lengths = _cycles(cycle_length, cycle_multiplier)
        index = sum((begun > end) * 1 for end in ends)
        past, length = _take([0, *ends], index), _take(lengths, index)
    angle = (begun - past) / length * math.pi
    rate = min_lr + (init_lr - min_lr) * (1 + _library(time).cos(angle)) / 2
    return _before(time, start, rate, init_lr, warmup)


def linear_decay(time, cycle_length: int, init_lr: float, min_lr: float = 1e-6, start: int = 1,
                 warmup: bool = False) -> Any:  # fmt: skip
    """A line from init_lr at `start` to min_lr, reached cycle_length later and kept."""
    _check("linear_decay", cycle_length=cycle_length)
    progress = _library(time).clip((time - start) / cycle_length, 0.0, 1.0)
    return _before(time, start, init_lr + (min_lr - init_lr) * progress, init_lr, warmup)


def step_decay(time, step_size: int, init_lr: float, factor: float = 0.1, min_lr: float = 0.0, start: int = 1,
               warmup: bool = False) -> Any:  # fmt: skip
    """init_lr times `factor` once for every `step_size` steps since `start`, at least min_lr."""
    _check("step_decay", step_size=step_size)
    if factor <= 0:
        raise UsageError(f"step_decay needs a factor above 0, got {factor}.")
    drops = _library(time).maximum(time - start, 0) // step_size
    rate = _library(time).maximum(init_lr * factor ** (drops * 1.0), min_lr)
    return _before(time, start, rate, init_lr, warmup)


def one_cycle(time, total_steps: int, max_lr: float, pct_start: float = 0.3, div_factor: float = 25.0,
              final_div_factor: float = 1e4) -> Any:  # fmt: skip
    """Half cosines from max_lr / div_factor up to max_lr and down to max_lr / div_factor / final_div_factor.

    The rise takes the share `pct_start` of the steps. arXiv 1708.07120; step t has the rate of PyTorch's
    OneCycleLR after t - 1 steps, and beyond `total_steps` the last one.
    """
    _check("one_cycle", total_steps=total_steps)
    if not 0 < pct_start < 1 or pct_start * total_steps <= 1:
        raise UsageError(
            f"one_cycle needs pct_start in (0, 1) worth more than 1 step, got {pct_start} of {total_steps}."
        )
    xp, peak, first = _library(time), pct_start * total_steps - 1, max_lr / div_factor
    up = xp.clip((time - 1) / peak, 0.0, 1.0)
    down = xp.clip((time - 1 - peak) / (total_steps - 1 - peak), 0.0, 1.0)
    rise = first + (max_lr - first) * (1 - xp.cos(up * math.pi)) / 2
    fall = max_lr + (first / final_div_factor - max_lr) * (1 - xp.cos(down * math.pi)) / 2
    return _number(time, xp.where(time - 1 <= peak, rise, fall))


def _before(time, start: int, rate, init_lr: float, warmup: bool) -> Any:
    early = init_lr * time / start if warmup else init_lr
    return _number(time, _library(time).where(time < start, early, rate))


def _cycles(first: int, multiplier: float) -> tuple[list[int], list[float]]:
    """Where cycles end, and how long they are, up to the furthest step."""
    ends, lengths = [], []
    while not ends or ends[-1] < FURTHEST:
        lengths.append(first * multiplier ** len(lengths))
        ends.append(min(sum(lengths), FURTHEST))
    return ends, [*lengths, lengths[-1]]


def _ceil_division(a, b: int):
    return -(-a // b)


def _take(values: list, index):
    return mx.array(values)[index] if isinstance(index, mx.array) else values[index]


def _library(time) -> Any:
    return mx if isinstance(time, mx.array) else np


def _number(time, rate) -> Any:
    return rate.astype(mx.float32) if isinstance(time, mx.array) else float(rate)


def _check(name: str, **lengths: float) -> None:
    for argument, value in lengths.items():
        if value < 1:
            raise UsageError(f"{name} needs {argument} of at least 1, got {value}.")
