"""Which calls of ops and modules got and gave finite numbers, those that mx.jvp carries along (tangents) included."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from runtime.calls import watched
from runtime.inspection import inexact
from runtime.op import Op
from runtime.trees import leaves


@dataclass
class Call:
    """A call: the floating arrays that it got and gave (by path), and whether they are finite, each 0-d."""

    name: str
    kind: str
    got: list[mx.array]
    gave: dict[str, mx.array]
    clean: mx.array
    sound: dict[str, mx.array]


class FiniteCalls:
    """Notes of the calls inside of `noted`, in the order in which they end; evaluated by `first`."""

    def __init__(self, things: dict[str, Any]):
        self.things = things
        self.calls: list[Call] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Within: every call is noted, and mx.jvp hands out the tangents inside of it."""
        original = mx.jvp
        mx.jvp = self._with_tangents(original)
        try:
            with watched(self.things, self._note):
                yield
        finally:
            mx.jvp = original

    def _note(self, name: str, thing: Any, given: tuple, out: Any) -> Any:
        if isinstance(thing, Op):  # of the data only what it reads, where it says so
            data = given[0][0]
            given = tuple(data[key] for key in thing.inputs if key in data) if thing.inputs else (data,)
        got = [leaf for _, leaf in leaves(given) if isinstance(leaf, mx.array) and inexact(leaf)]
        gave = {path: leaf for path, leaf in leaves(out) if isinstance(leaf, mx.array) and inexact(leaf)}
        sound = {path: finite([leaf]) for path, leaf in gave.items()}
        self.calls.append(Call(name, type(thing).__name__, got, gave, finite(got), sound))
        return out

    def _with_tangents(self, original: Callable) -> Callable:
        """mx.jvp, which also differentiates what the calls inside of it got and gave."""

        def jvp(function: Callable, primals: list[mx.array], tangents: list[mx.array]) -> tuple[list, list]:
            count, inside = 0, []

            def widened(*given: mx.array) -> list[mx.array]:
                nonlocal count
                begin, out = len(self.calls), function(*given)
                own = list(out) if isinstance(out, list | tuple) else [out]
                inside.extend(self.calls[begin:])
                count = len(own)
                return own + [array for call in inside for array in (*call.got, *call.gave.values())]

            values, slopes = original(widened, primals, tangents)
            left = slopes[count:]
            for call in inside:
                got, gave = left[: len(call.got)], left[len(call.got) : len(call.got) + len(call.gave)]
                left = left[len(call.got) + len(call.gave) :]
                call.clean = call.clean & finite(got)
                pairs = zip(call.sound.items(), gave, strict=True)
                call.sound = {path: ok & finite([slope]) for (path, ok), slope in pairs}
            return values[:count], slopes[:count]

        return jvp

    def first(self) -> tuple[Call, bool, list[str], str] | None:
        """The call where it began, whether its inputs are finite, the paths of its bad results, and the first bad call.

        That is the first with finite inputs and a result that isn't; where all have bad inputs, the first in time.
        """
        bad: list[tuple[Call, bool, list[str]]] = []
        for call in self.calls:
            try:
                mx.eval(call.clean, call.sound)
            except ValueError:  # made inside of mx.vmap: only what comes out of that is known
                continue
            if wrong := [path for path, ok in call.sound.items() if not ok.item()]:
                bad.append((call, bool(call.clean.item()), wrong))
        if not bad:
            return None
        return *next((one for one in bad if one[1]), bad[0]), bad[0][0].name


def finite(arrays: list[mx.array]) -> mx.array:
    """Whether all of some floating arrays (...) are finite, 0-d."""
    flags = [mx.isfinite(mx.stop_gradient(array)).all() for array in arrays]
    return mx.stack(flags).all() if flags else mx.array(True)
