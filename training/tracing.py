"""How steps become compiled ones: counted, with the reason where one is traced more often than it should be."""

from collections.abc import Callable, Hashable, Mapping
from copy import copy
from typing import Any

import mlx.core as mx

from runtime.errors import UsageError
from runtime.slots import snapshot

MOST = 16  # phases and sets of fetched keys that one step may have before that is worth a warning


class Traces:
    """Counts the traces of a step, each of which is a compilation; warns once where there are too many.

    A step is traced once for each signature (which keys it fetches, phases, data set) and set of inputs, and anew
    wherever the shape or dtype of one or of the state changes, which is a mistake. name: what messages call the step.
    state: what the step captures.
    """

    def __init__(self, name: str, state: Any):
        self.name, self.state, self.count, self.told = name, state, 0, False
        self._seen: dict[Hashable, dict[str, str]] = {}  # what the last trace of a signature saw

    def counted(self, run: Callable, signature: Hashable, names: tuple[str, ...]) -> Callable:
        """A function to compile in place of `run`; names: of its positional arguments.

        UsageError where it draws from MLX's global random state.
        """

        def traced(*inputs: Any) -> Any:
            self._note(signature, dict(zip(names, inputs, strict=True)))
            state: Any = mx.random.state
            before = state[0]
            out = run(*inputs)
            if state[0] is not before:
                raise UsageError(
                    f"the {self.name} draws from MLX's global random state (nn.Dropout does, and mx.random without "
                    "key=), which is read once, when it is compiled: every step would get the same numbers. Needed: a "
                    "key, as models.layers.Dropout takes."
                )
            return out

        return traced

    def _note(self, signature: Hashable, inputs: Mapping[str, Any]) -> None:
        arrays = snapshot(inputs) | {f"state.{path}": array for path, array in snapshot(self.state).items()}
        now = {path: f"{array.shape} {str(array.dtype).removeprefix('mlx.core.')}" for path, array in arrays.items()}
        before = self._seen.get((signature, *now))
        self._seen[signature, *now] = now
        self.count += 1
        if self.told or (before is None and len(self._seen) <= MOST):
            return
        self.told = True
        if before is None:
            print(f"warning: the {self.name} has been compiled {self.count} times, for {len(self._seen)} different "
                  "phases, data sets and sets of keys; needed: a phase that takes few values.")  # fmt: skip
        else:
            print(f"warning: the {self.name} is compiled again ({self.count} times so far) since its inputs changed: "
                  f"{difference(before, now)}. Needed: the same shapes and dtypes in every step.")  # fmt: skip


def difference(before: Mapping[str, str], now: Mapping[str, str], most: int = 3) -> str:
    """What changed between two descriptions of the same arrays by path, in words; at most so many of them."""
    paths = [path for path in now if before[path] != now[path]]
    told = [f"{path} is {now[path]}, was {before[path]}" for path in paths[:most]]
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    return "; ".join(told) + more if told else "a Python value that it reads"


def eagerly(run: Callable, *arguments: Any) -> Any:
    """Runs without any mx.compile, nn.silu's and nn.gelu's own too: outside a compiled step they lack grad(jvp)."""
    mx.disable_compile()
    try:
        return run(*arguments)
    finally:
        mx.enable_compile()


def eager(step: Any) -> Any:
    """A TrainStep that is the same on the same state, uncompiled."""
    twin = copy(step)
    twin.compile, twin._compiled = False, {}
    return twin
