"""Modules that run by NumPy as well: on a CPU an MLX operation takes about 10 us however small its arrays, NumPy's 1.

Their code asks `namespace(x)` for the functions to call, so that there is one code for both. A class says by
`runs_on_host = True` that all of its code does, and the layers that it is made of are those of `twin`.
"""

from copy import copy
from functools import lru_cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from runtime.quantized import QuantizedLinear


class Host:
    """NumPy's functions, and those of mlx.core that NumPy lacks or that have another type there, in float32."""

    def __getattr__(self, name: str) -> Any:
        """NumPy's function of that name."""
        return getattr(np, name)

    @staticmethod
    def zeros(shape: tuple[int, ...]) -> np.ndarray:
        """Zeros in float32."""
        return np.zeros(shape, np.float32)

    @staticmethod
    def broadcast_to(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """NumPy's, which takes 5 us where there is nothing to do."""
        return x if x.shape == shape else np.broadcast_to(x, shape)

    @staticmethod
    def clip(x: np.ndarray, low: float, high: float) -> np.ndarray:
        """NumPy's in two thirds of its time."""
        return np.minimum(np.maximum(x, low), high)

    @staticmethod
    def take_along_axis(x: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
        """NumPy's in half of its time, for one number (..., 1) of each row of the last axis."""
        assert axis == -1 and index.shape == (*x.shape[:-1], 1)
        flat = x.reshape(-1, x.shape[-1])
        return flat[np.arange(len(flat)), index.reshape(-1)].reshape(index.shape)

    @staticmethod
    def logaddexp(a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
        """ln of the sum of the exponentials of finite numbers, vectorised unlike NumPy's."""
        return np.maximum(a, b) + np.log1p(np.exp(-np.abs(a - b)))

    @staticmethod
    def erf(x: np.ndarray) -> np.ndarray:
        """The error function."""
        from scipy.special import erf

        return erf(x)

    @staticmethod
    def logsumexp(x: np.ndarray, axis: int, keepdims: bool = False) -> np.ndarray:
        """ln of the sum of exponentials of finite numbers along an axis."""
        most = x.max(axis=axis, keepdims=True)
        found = most + np.log(np.exp(x - most).sum(axis=axis, keepdims=True))
        return found if keepdims else found.squeeze(axis)

    @staticmethod
    def softmax(x: np.ndarray, axis: int, precise: bool = True) -> np.ndarray:
        """Exponentials over their sum along an axis."""
        del precise  # float32 is
        found = np.exp(x - x.max(axis=axis, keepdims=True))
        found /= found.sum(axis=axis, keepdims=True)
        return found


HOST = Host()


def namespace(x: Any) -> Any:
    """What has the array functions for x: mlx.core for an MLX array, HOST for NumPy's."""
    return mx if isinstance(x, mx.array) else HOST


def uniform(xp: Any, low: float, high: float, shape: tuple[int, ...], key: mx.array) -> Any:
    """mlx.core's random numbers as arrays of xp, the same for either; those of one key are drawn once for the host."""
    if xp is mx:
        return mx.random.uniform(low, high, shape, key=key)
    return _kept_uniform(low, high, shape, *np.array(key).tolist())


@lru_cache(maxsize=4)
def _kept_uniform(low: float, high: float, shape: tuple[int, ...], *key: int) -> np.ndarray:
    found = np.array(mx.random.uniform(low, high, shape, key=mx.array(key, mx.uint32)))
    found.setflags(write=False)
    return found


def constant(values: list[float]) -> dict[Any, Any]:
    """Numbers made once as a float32 array of either kind: `found[namespace(x)]` goes with x."""
    return {mx: mx.array(values), HOST: np.array(values, np.float32)}


class HostLinear:
    """(..., I) -> (..., O) as a Linear layer does, on NumPy arrays."""

    def __init__(self, layer: nn.Linear | QuantizedLinear):
        self.weight = np.ascontiguousarray(np.array(layer.weight.astype(mx.float32)).T)  # a fifth less time so
        self.bias = np.array(layer["bias"].astype(mx.float32)) if "bias" in layer else None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x (..., inputs) -> (..., outputs)."""
        found = x.reshape(-1, x.shape[-1]) @ self.weight  # one product: NumPy would take one for each leading row
        if self.bias is not None:
            found += self.bias
        return found.reshape(*x.shape[:-1], -1)


class HostLayerNorm:
    """A LayerNorm on NumPy arrays."""

    def __init__(self, layer: nn.LayerNorm):
        self.eps, self.dims = layer.eps, layer.dims
        self.weight, self.bias = (np.array(layer[name].astype(mx.float32)) if name in layer else None
                                  for name in ("weight", "bias"))  # fmt: skip

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x (..., C) less its mean over its standard deviation, scaled and shifted."""
        x = x - x.sum(axis=-1, keepdims=True) / self.dims
        x /= np.sqrt(np.square(x).sum(axis=-1, keepdims=True) / self.dims + self.eps)
        x = x if self.weight is None else x * self.weight
        return x if self.bias is None else x + self.bias


def twin(module: Any) -> Any:
    """A copy of a module, with its weights of now, that takes and gives NumPy arrays; nests of modules likewise."""
    if isinstance(module, nn.Linear | QuantizedLinear):
        return HostLinear(module)
    if isinstance(module, nn.LayerNorm):
        return HostLayerNorm(module)
    if isinstance(module, list | tuple):
        return [twin(part) for part in module]
    if isinstance(module, nn.Module):
        found = copy(module)
        for name, part in module.items():
            found[name] = twin(part)
        return found
    return module


def on_host(module: Any) -> Any | None:
    """`twin` of a module whose class says that it can, where the default device is a CPU; else None."""
    if not getattr(module, "runs_on_host", False) or mx.default_device() != mx.Device(mx.cpu):
        return None
    return twin(module)
