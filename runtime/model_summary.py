"""A model as a table: its modules with their arrays, output shapes, sizes and what of them trains."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from runtime.calls import modules_in, watched
from runtime.columns import columns
from runtime.seed import global_key_kept
from runtime.slots import snapshot, write
from runtime.trees import flatten, leaves


@dataclass
class Row:
    """A module: own arrays by name with their shapes; counts and bytes of all below it, a shared array once.

    output: the shapes it returned, "" where it was not called. note: what is unusual. depth: modules around it.
    """

    path: str
    kind: str
    output: str
    arrays: dict[str, tuple[int, ...]] = field(default_factory=dict)
    parameters: int = 0
    trainable: int = 0
    nbytes: int = 0
    dtypes: set[str] = field(default_factory=set)
    note: str = ""
    depth: int = 0


class _Walk:
    """Makes the rows; what it has met already counts nothing."""

    def __init__(self, model: nn.Module, shapes: Mapping[str, str]):
        self.shapes, self.rows = shapes, []
        self.parameters = set(flatten(model.parameters()))
        trained = {id(leaf) for leaf in flatten(model.trainable_parameters()).values()}
        self.trained, self.modules, self.arrays = trained, {}, {}
        self.visit("", model, 0)

    def visit(self, path: str, module: nn.Module, depth: int) -> Row:
        row = Row(path, type(module).__name__, self.shapes.get(path, ""), depth=depth)
        self.rows.append(row)
        if id(module) in self.modules:
            row.note = f"is {self.modules[id(module)]}"
            return row
        self.modules[id(module)] = path or "the model"
        found: list[str] = []
        for name, value in _members(module):
            inner = f"{path}.{name}" if path else name
            if isinstance(value, nn.Module):
                below = self.visit(inner, value, depth + 1)
                row.parameters, row.trainable = row.parameters + below.parameters, row.trainable + below.trainable
                row.nbytes, row.dtypes = row.nbytes + below.nbytes, row.dtypes | below.dtypes
            elif inner not in self.parameters:
                found.append(f"{name} is no parameter")
            else:
                row.arrays[name] = tuple(value.shape)
                if id(value) in self.arrays:
                    found.append(f"{name} is {self.arrays[id(value)]}")
                    continue
                self.arrays[id(value)] = inner
                row.parameters, row.nbytes = row.parameters + value.size, row.nbytes + value.nbytes
                row.trainable += value.size if id(value) in self.trained else 0
                row.dtypes = row.dtypes | {str(value.dtype).removeprefix("mlx.core.")}
        if row.parameters and not row.trainable:
            found.append("frozen")
        row.note = ", ".join(found)
        return row


def _members(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The modules and arrays right below a module, through its dictionaries, lists and tuples; no private arrays."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, nn.Module):
            yield name, value
        elif isinstance(value, mx.array):
            if not name.startswith("_"):
                yield name, value
        elif isinstance(value, dict | list | tuple):
            yield from _members(value, name)


@contextmanager
def output_shapes(models: Any) -> Iterator[dict[str, str]]:
    """Within: notes by the path of a module in a nest what its calls return, and how many there were if several."""
    shapes: dict[str, str] = {}
    calls: dict[str, list[str]] = {}

    def note(path: str, module: Any, given: tuple, out: Any) -> Any:
        calls.setdefault(path, []).append(", ".join(str(tuple(leaf.shape)) for _, leaf in leaves(out)))
        several = dict.fromkeys(calls[path])
        shapes[path] = " or ".join(several) + (f" x {len(calls[path])}" if len(calls[path]) > 1 else "")
        return out

    with watched(dict(modules_in(models)), note):
        yield shapes


def model_summary(
    model: nn.Module, *inputs: Any, shapes: Mapping[str, str] | None = None, **conditions: Any
) -> list[Row]:
    """A row for every module, the model first. With inputs it is called in evaluation mode for the output shapes.

    shapes: those that `output_shapes` noted, instead of a call. Nothing is computed, and the model stays as it was.
    """
    if shapes is None and (inputs or conditions):
        held, modes = snapshot(model), [(module, module.training) for _, module in modules_in(model)]
        with global_key_kept(), output_shapes(model) as shapes:
            try:
                model.eval()
                model(*inputs, **conditions)
            finally:
                write(model, held)
                for module, mode in modes:
                    module._training = mode
    return _Walk(model, shapes or {}).rows


def print_model_summary(
    model: nn.Module, *inputs: Any, depth: int | None = None, shapes: Mapping[str, str] | None = None, **conditions: Any
) -> None:
    """Prints `model_summary` with the totals; depth: levels of modules shown below the model, None for all."""
    rows = model_summary(model, *inputs, shapes=shapes, **conditions)
    head = ("module", "class", "output", "arrays", "parameters", "trainable", "memory", "type", "note")
    table = [head, *(_cells(row) for row in rows if depth is None or row.depth <= depth)]
    kept = [i for i in range(len(head)) if i < 2 or any(line[i] for line in table[1:])]
    print("\n".join(columns([tuple(line[i] for i in kept) for line in table])))
    count, trained = rows[0].parameters, rows[0].trainable
    print(f"{count:,} parameters, {trained:,} trainable, {count - trained:,} frozen, {in_bytes(rows[0].nbytes)}")
    if hidden := [f"{row.path}: {row.note}" for row in rows if "is no parameter" in row.note]:
        print(f"MLX sees no parameters in tuples and under private names; {'; '.join(hidden)}.")


def _cells(row: Row) -> tuple[str, ...]:
    arrays = ", ".join(f"{name} {shape}" for name, shape in row.arrays.items())
    return (row.path or "(model)", row.kind, row.output, arrays, f"{row.parameters:,}", f"{row.trainable:,}",
            in_bytes(row.nbytes), " ".join(sorted(row.dtypes)), row.note)  # fmt: skip


def in_bytes(count: int) -> str:
    """A number of bytes in the unit that keeps it short: "1.5 MiB"."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"
