"""A checkpoint of one set of weights in fewer bits, or without the smallest of them, which opens as a run's does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.nn.layers.base import Module
from mlx.utils import tree_map_with_path

from runtime.calls import modules_in
from runtime.errors import UsageError
from runtime.quantized import QuantizedEmbedding, QuantizedLinear
from runtime.slots import first_paths, restore, snapshot
from training.network import Network
from training.update import UpdateOp

BITS, GROUPS = (2, 3, 4, 5, 6, 8), (32, 64, 128)  # what mx.quantize takes
META = "compressed"  # in a file's metadata: what was done to the weights
MASK, VALUES = "#mask", "#values"  # of a pruned array: which of its numbers are not 0, a bit each, and these numbers
CODES, SCALES, SHIFTS = "#codes", "#scales", "#shifts"  # of a matrix in few bits, as in runtime/quantized.py
Models = Mapping[str, nn.Module]


def kept(models: Models, network: Network) -> dict[str, Any]:
    """What a run without its training is made of: models, the states of ops that do not train, a table's rows."""
    ops = {str(i): op.state for i, op in enumerate(network.ops) if not isinstance(op, UpdateOp)}
    table = {} if network.looking_up is None else {"table": network.looking_up.table}
    return {"models": dict(models), "ops": ops, **table}


def prune(models: Models, share: float) -> list[str]:
    """Sets that share of all weights to 0, those of least magnitude over all layers; the paths of the arrays pruned.

    Weights are the floating arrays of two or more axes; biases and norms stay. Of n weights exactly
    round(share n) are 0 afterwards, or more where more were.
    """
    if not 0 < share < 1:
        raise UsageError(f"prune must be a share of the weights above 0 and below 1, got {share}.")
    first, arrays = first_paths(models), snapshot(dict(models))
    paths = [path for path, array in arrays.items() if first[path] == path
             and array.ndim > 1 and mx.issubdtype(array.dtype, mx.floating)]  # fmt: skip
    if not paths:
        raise UsageError("prune found no weights of two axes or more in this run's models.")
    values = [np.array(arrays[path].astype(mx.float32)).ravel() for path in paths]
    flat = np.concatenate(values)
    flat[np.argsort(np.abs(flat), kind="stable")[: round(share * len(flat))]] = 0
    parts = np.split(flat, np.cumsum([len(part) for part in values])[:-1])
    pruned = {path: mx.array(part.reshape(arrays[path].shape)).astype(arrays[path].dtype)
              for path, part in zip(paths, parts, strict=True)}  # fmt: skip
    restore(dict(models), arrays | {path: pruned[first[path]] for path in arrays if first[path] in pruned}, "prune")
    return paths


def quantise(models: Models, bits: int, group: int, only: Sequence[str] | None = None) -> list[str]:
    """Turns linear layers and embeddings into quantised ones, in place; the paths of those taken.

    Layers whose rows are no multiple of `group` numbers stay as they are, and so do convolutions. only: the paths to
    take. Raises UsageError for other bits and groups than MLX's and where neither a layer nor a matrix can be taken.
    """
    if bits not in BITS or group not in GROUPS:
        raise UsageError(f"bits must be one of {BITS} and group one of {GROUPS}, got bits={bits}, group={group}.")
    made: dict[int, nn.Module] = {}  # a layer that stands in two places stays one
    taken = []

    def turned(path: str, layer: nn.Module) -> nn.Module:
        if id(layer) in made:
            return made[id(layer)]
        new = quantised(layer, bits, group) if only is None or path in only else None
        if new is None:
            return layer
        taken.append(path)
        made[id(layer)] = new
        return new

    for name, model in models.items():
        leaves = tree_map_with_path(
            lambda path, layer, name=name: turned(f"{name}.{path}", layer), model.leaf_modules(),
            is_leaf=Module.is_module,
        )  # fmt: skip
        model.update_modules(leaves)
    if not taken and not matrices(models, group):
        raise UsageError(f"no layer of this run can be quantised; needed: linear layers or embeddings whose rows are a "
                         f"multiple of {group} numbers.")  # fmt: skip
    return taken


def matrices(models: Models, group: int) -> list[str]:
    """The paths of arrays that modules multiply by without a layer of their own, and whose rows `group` divides.

    A module names them in `matrices`. In a file they may have few bits; whoever opens it gets floats.
    """
    return [f"{path}.{name}" for path, module in modules_in(dict(models))
            for name in getattr(module, "matrices", ()) if module[name].shape[-1] % group == 0]  # fmt: skip


def quantised(layer: nn.Module, bits: int, group: int) -> nn.Module | None:
    """A layer that computes with the quantised weight; None for one that can't.

    A class derived from MLX's must say itself how, by a `to_quantized` of its own: its rows may mean something else.
    """
    kind: Any = type(layer)
    own = getattr(kind, "to_quantized", None)
    inherited = own in (nn.Linear.to_quantized, nn.Embedding.to_quantized)
    if own is None or (inherited and kind not in (nn.Linear, nn.Embedding)) or layer["weight"].shape[-1] % group:
        return None
    if not inherited:
        return own(layer, group, bits)
    return (QuantizedLinear if kind is nn.Linear else QuantizedEmbedding)(layer, bits, group)


def packed(
    arrays: Mapping[str, mx.array], paths: Sequence[str], few: Sequence[str] = (), bits: int = 8, group: int = 64
) -> dict[str, mx.array]:
    """The arrays with those of `paths` as a mask of bits and the numbers that are not 0, those of `few` in few bits."""
    out = dict(arrays)
    for path in few:
        out[path + CODES], out[path + SCALES], out[path + SHIFTS] = mx.quantize(out.pop(path), group, bits)
    for path in paths:
        values = np.array(out.pop(path)).ravel()
        out[path + MASK] = mx.array(np.packbits(values != 0))
        out[path + VALUES] = mx.array(values[values != 0])
    return out


def unpacked(
    arrays: Mapping[str, mx.array], like: Mapping[str, mx.array], bits: int = 8, group: int = 64
) -> dict[str, mx.array]:
    """The arrays that `packed` was given, as near as their bits say; like: arrays of their shapes."""
    out = {path: array for path, array in arrays.items() if not path.endswith((MASK, VALUES, CODES, SCALES, SHIFTS))}
    for path in (name.removesuffix(CODES) for name in arrays if name.endswith(CODES)):
        codes, scales, shifts = (arrays[path + part] for part in (CODES, SCALES, SHIFTS))
        out[path] = mx.dequantize(codes, scales, shifts, group, bits)
    for path in (name.removesuffix(MASK) for name in arrays if name.endswith(MASK)):
        values, shape = np.array(arrays[path + VALUES]), like[path].shape
        whole = np.zeros(like[path].size, values.dtype)
        whole[np.unpackbits(np.array(arrays[path + MASK]), count=whole.size).astype(bool)] = values
        out[path] = mx.array(whole.reshape(shape))
    return out


def open_into(models: Models, network: Network, arrays: Mapping[str, mx.array], meta: Mapping[str, Any],
              source: str | Path) -> None:  # fmt: skip
    """Puts a compressed file's arrays into models and network that its config describes; averages start from them."""
    done = meta[META]
    if done["layers"]:
        quantise(models, done["bits"], done["group"], done["layers"])
    state = kept(models, network)
    few = {"bits": done["bits"], "group": done["group"]} if done["bits"] else {}
    restore(state, unpacked(arrays, snapshot(state), **few), str(source))
    for update in network.updates:
        update.averages.reset(update.leaves())
