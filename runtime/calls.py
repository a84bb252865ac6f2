"""Watching the calls of modules and ops: MLX's modules have no hooks, and Python looks `__call__` up on the class."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mlx.nn as nn

Before = Callable[[str, Any, tuple, dict], tuple[tuple, dict]]  # arguments and keywords to call with
After = Callable[[str, Any, tuple, Any], Any]  # (name, thing, (arguments, keywords), result) -> what to return
_open: list[object] = []  # one for each block that watches


def watching() -> bool:
    """Whether calls are watched now, so that nothing may be called more often than it says."""
    return bool(_open)


@contextmanager
def watched(things: Mapping[str, Any], after: After, before: Before | None = None) -> Iterator[None]:
    """Within: every call of one of these things passes through `after`, those inside of a call before it.

    before(name, thing, arguments, keywords) gives those to call with. A call that a thing makes of itself
    (`super().__call__`) is part of its own. Their classes are changed meanwhile, and put back. A function that
    mx.compile has traced before calls nothing.
    """
    names = {id(thing): name for name, thing in reversed([*things.items()])}  # of several names the first
    classes = {type(thing): type(thing).__call__ for thing in things.values() if callable(thing)}
    own = {kind: kind.__dict__["__call__"] for kind in classes if "__call__" in kind.__dict__}
    open_calls: set[int] = set()

    def replaced(original: Callable) -> Callable:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if id(self) not in names or id(self) in open_calls:
                return original(self, *args, **kwargs)
            if before is not None:
                args, kwargs = before(names[id(self)], self, args, kwargs)
            open_calls.add(id(self))
            try:
                out = original(self, *args, **kwargs)
            finally:
                open_calls.discard(id(self))
            return after(names[id(self)], self, (args, kwargs), out)

        return call

    _open.append(names)
    try:
        for kind, original in classes.items():
            kind.__call__ = replaced(original)
        yield
    finally:
        _open.pop()
        for kind in classes:
            if kind in own:
                kind.__call__ = own[kind]
            elif "__call__" in kind.__dict__:
                del kind.__call__


def modules_in(tree: Any, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules in a nest by dotted path, `tree` itself first; a shared one under each of its paths.

    Those in tuples and under private names too, which MLX doesn't count as parameters but which are called.
    """
    if isinstance(tree, nn.Module):
        yield path, tree
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, value in items:
        yield from modules_in(value, f"{path}.{key}" if path else str(key))
