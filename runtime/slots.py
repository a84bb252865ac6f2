"""Named places of the arrays in a nest of modules, dicts and lists: a restore writes into the same containers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from runtime.errors import UsageError
from runtime.table import Table


def slots(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields (path, container, key) of every array below `tree`; names that start with "_" are constants, skipped."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        if isinstance(key, str) and key.startswith("_"):
            continue
        path = f"{prefix}{key}"
        if isinstance(value, mx.array):
            yield path, tree, key
        elif isinstance(value, dict | list | tuple):
            yield from slots(value, path + ".")
        elif isinstance(value, Table):  # mx.compile sees no array in it, so that no step carries it along
            yield from slots(value.state, path + ".")


def snapshot(tree: Any) -> dict[str, mx.array]:
    """The arrays below `tree` by path; the arrays are shared, not copied."""
    return {path: container[key] for path, container, key in slots(tree)}


def first_paths(tree: Any) -> dict[str, str]:
    """The first path to the array that each path names: what stands in several places of `tree` has several."""
    first: dict[tuple[int, Any], str] = {}
    return {path: first.setdefault((id(container), key), path) for path, container, key in slots(tree)}


def write(tree: Any, arrays: dict[str, mx.array]) -> None:
    """Puts `arrays` (by path) into their places; paths that `arrays` lacks keep what they hold."""
    for path, container, key in list(slots(tree)):
        if path in arrays:
            container[key] = arrays[path]


@contextmanager
def restored_on_error(tree: Any) -> Iterator[None]:
    """Puts the arrays of `tree` back where what is inside raises: a trace that fails leaves its tracers in them."""
    held = snapshot(tree)
    try:
        yield
    except BaseException:
        write(tree, held)
        raise


def restore(tree: Any, arrays: dict[str, mx.array], source: str) -> None:
    """Writes all of `arrays` into `tree`; raises UsageError where names, shapes or types differ."""
    have = snapshot(tree)
    missing, unexpected = sorted(have.keys() - arrays.keys()), sorted(arrays.keys() - have.keys())
    if missing or unexpected:
        raise UsageError(
            f"{source} does not fit this network: it lacks {len(missing)} arrays (first: {missing[:2]}) and has "
            f"{len(unexpected)} unknown ones (first: {unexpected[:2]})."
        )
    for path, array in sorted(arrays.items()):  # models before optimizers
        if array.shape != have[path].shape or array.dtype != have[path].dtype:
            got, needed = (f"{a.shape} {str(a.dtype).rpartition('.')[2]}" for a in (array, have[path]))
            raise UsageError(f"{source}: {path} has {got}; needed: {needed}.")
    write(tree, arrays)
