"""Gradients inside of a forward pass: zeros are added to inputs and outputs of modules, and are differentiated by.

That changes no value, needs no rule of its own under jvp, and the gradient of such a zero is that of the place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from runtime.calls import watched
from runtime.inspection import check_nan_inf
from runtime.op import Batch
from runtime.trees import tree_map


@dataclass
class Call:
    """A call of a module: when it began and ended among all such events, its probes before and after it."""

    name: str
    began: int
    ended: int = -1
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


class Probes:
    """Probes of modules (by name): first `noted`, then `zeros` are what to differentiate by inside of `added`.

    Both passes must make the same calls in the same order.
    """

    def __init__(self, modules: dict[str, Any]):
        self.modules = modules
        self.zeros: Batch = {}
        self.calls: list[Call] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Within: every call's floating inputs and outputs get a probe."""
        self.calls, self.zeros = [], {}

        def note(name: str, array: mx.array) -> mx.array:
            self.zeros[name] = mx.zeros(array.shape, array.dtype)
            return array

        with self._watching(note):
            yield

    @contextmanager
    def added(self, probes: Batch) -> Iterator[None]:
        """Within: the probes are added where they belong."""
        self.calls = []

        def add(name: str, array: mx.array) -> mx.array:
            probe = probes.get(name)
            return array if probe is None or probe.shape != array.shape else array + probe

        with self._watching(add):
            yield

    @contextmanager
    def _watching(self, use: Callable[[str, mx.array], mx.array]) -> Iterator[None]:
        events, open_calls = 0, []

        def probed(names: list[str], tree: Any) -> Any:
            def at(array: Any) -> Any:
                if not (isinstance(array, mx.array) and mx.issubdtype(array.dtype, mx.floating)):
                    return array
                names.append(f"{events}.{len(names)}")
                return use(names[-1], array)

            return tree_map(at, tree)

        def before(name: str, thing: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            nonlocal events
            events += 1
            open_calls.append(Call(name, events))
            return probed(open_calls[-1].before, (args, kwargs))

        def after(name: str, thing: Any, given: tuple, out: Any) -> Any:
            nonlocal events
            events += 1
            call = open_calls.pop()
            call.ended = events
            self.calls.append(call)
            return probed(call.after, out)

        with watched(self.modules, after, before):
            yield

    def origin(self, gradients: Batch, bad_weights: set[str]) -> str | None:
        """The innermost call, the last in time, with a finite gradient behind it and one that isn't before it.

        gradients: by the probes. bad_weights: paths of weights whose gradients aren't finite.
        """
        bad = {name for name, leaf in gradients.items() if check_nan_inf(leaf)}
        found = [
            call
            for call in self.calls
            if not bad & set(call.after)
            and (bad & set(call.before) or any(path.startswith(f"{call.name}.") for path in bad_weights))
        ]
        inside, best = found, None
        while inside:
            best = max(inside, key=lambda call: call.ended)
            inside = [call for call in inside if best.began < call.began and call.ended < best.ended]
        return None if best is None else best.name
