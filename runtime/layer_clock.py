"""A clock that knows which layer the time of an uncompiled training step belongs to, forward and backward.

MLX is lazy, so every layer's inputs and outputs are evaluated where they pass its borders: forward when it is called,
backward (and under jvp) by identities at the borders whose derivative rules evaluate what comes by. Whatever was
computed since the last border belongs to the layer just left, or to its parent just before the layer.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map

from runtime.calls import modules_in, watched
from runtime.slots import slots
from runtime.work import Layer, Work, attention, size_of

PHASES = ("forward", "backward")
OUTSIDE = "outside of layers"  # the loss and the ops; what follows the last layer counts as backward
REST = "rest: optimizer, norms, guard"


@dataclass
class Entry:
    """One layer in one step: seconds and work by phase ("forward", "backward"), and how often it was called."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    work: dict[str, Work] = field(default_factory=lambda: dict.fromkeys(PHASES, Work()))
    calls: int = 0

    @property
    def total(self) -> float:
        """Seconds of both phases."""
        return sum(self.seconds.values())

    @property
    def both(self) -> Work:
        """Work of both phases."""
        return self.work["forward"] + self.work["backward"]


@dataclass
class Span:
    """A piece of time of a layer in one phase ("call": a whole call with what is called inside), in seconds."""

    name: str
    phase: str
    start: float
    seconds: float


@dataclass
class Call:
    """A call that goes on: its layer and the one around it, when it began, what it got, its weights and where they are.

    marked: the weights with a border, in their places while the call lasts. work: known at its end, which is before any
    derivative is taken.
    """

    name: str
    parent: str
    began: float
    inputs: list[mx.array]
    places: list[tuple[Any, Any]] = field(default_factory=list)
    weights: list[mx.array] = field(default_factory=list)
    marked: list[mx.array] = field(default_factory=list)
    work: Layer | None = None


class LayerClock:
    """Times the layers of models while `attached`; `entries` and `spans` are those of the last step.

    models: by name; a module that is in several places has its first path. The order of entries is that of first use.
    """

    def __init__(self, models: Mapping[str, nn.Module], clock: Callable[[], float] = time.perf_counter):
        self.modules = dict(modules_in(models))
        self.places = {id(module): self._own_places(module) for module in self.modules.values()}
        self.entries: dict[str, Entry] = {}
        self.spans: list[Span] = []
        self._clock, self._open, self._last = clock, [], 0.0

    @staticmethod
    def _own_places(module: nn.Module) -> list[tuple[Any, Any]]:
        """Where the module keeps arrays that no module below it keeps."""
        below = [child for _, child in modules_in(module) if child is not module]
        theirs = {(id(container), key) for child in below for _, container, key in slots(child)}
        return [(container, key) for _, container, key in slots(module) if (id(container), key) not in theirs]

    def begin(self) -> None:
        """Forgets the last step; the time of the next one starts here."""
        mx.synchronize()
        self.entries, self.spans, self._last = {}, [], self._clock()

    def charge(self, name: str, phase: str, arrays: Any, work: tuple = Work()) -> None:
        """Computes `arrays`; the time since the last charge, and the work, are that layer's."""
        evaluated(arrays)
        self._charge(name, phase, work)

    def end(self, arrays: Any) -> None:
        """Computes all that is left, `arrays`, and forgets what it was made of; the time is that of the rest."""
        mx.eval(arrays)
        self._charge(REST, "backward")

    def _charge(self, name: str, phase: str, work: tuple = Work()) -> None:
        mx.synchronize()
        now = self._clock()
        entry = self.entries.setdefault(name, Entry())
        entry.seconds[phase] += now - self._last
        entry.work[phase] += work
        self.spans.append(Span(name, phase, self._last, now - self._last))
        self._last = now

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Within: calls of the models' layers and of MLX's attention are timed."""
        fast, plain = cast(Any, mx.fast), mx.fast.scaled_dot_product_attention

        def attention(q: mx.array, k: mx.array, v: mx.array, **options: Any) -> mx.array:
            q, k, v = self._enter(f"{self._around()}.scaled_dot_product", (q, k, v))
            out = plain(q, k, v, **options)
            return self._leave(out, lambda call, outputs: Attention(call.inputs, outputs))

        def before(name: str, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            return self._enter(name, (args, kwargs), self.places[id(module)])

        def after(name: str, module: nn.Module, given: tuple, out: Any) -> Any:
            counted = not any(True for _, child in modules_in(module) if child is not module)
            return self._leave(out, lambda call, outputs: Layer(module, call.inputs, call.weights, outputs, counted))

        fast.scaled_dot_product_attention = attention
        try:
            with watched(self.modules, after, before):
                yield
        finally:
            fast.scaled_dot_product_attention = plain
            while self._open:  # calls that an error has ended
                self._put_back(self._open.pop())

    def _around(self) -> str:
        return self._open[-1].name if self._open else OUTSIDE

    def _enter(self, name: str, given: Any, places: Sequence[tuple[Any, Any]] = ()) -> Any:
        """What a layer is to be called with."""
        parent, inputs = self._around(), floats(given)
        self.charge(parent, "forward", inputs)
        self.entries.setdefault(name, Entry()).calls += 1
        own = [(container, key) for container, key in places if mx.issubdtype(container[key].dtype, mx.floating)]
        call = Call(name, parent, self._last, inputs, own, [container[key] for container, key in own])

        def entering(array: mx.array) -> mx.array:
            return border(array, lambda c: self.charge(name, "backward", c, work_of(call).input_gradient()),
                          lambda t: self.charge(parent, "forward", t))  # fmt: skip

        def weighing(array: mx.array) -> mx.array:
            return border(array, lambda c: self.charge(name, "backward", c, work_of(call).weight_gradient(array)))

        call.marked = [weighing(weight) for weight in call.weights]
        for (container, key), weight in zip(own, call.marked, strict=True):
            container[key] = weight
        self._open.append(call)
        return mapped(entering, given)

    def _leave(self, out: Any, work: Callable[[Call, list[mx.array]], Layer]) -> Any:
        """What a layer is to return."""
        call = self._open.pop()
        self._put_back(call)
        call.work = work(call, floats(out))
        self.charge(call.name, "forward", floats(out), call.work.forward())
        self.spans.append(Span(call.name, "call", call.began, self._last - call.began))

        def leaving(array: mx.array) -> mx.array:
            return border(array, lambda c: self.charge(call.parent, "backward", c),
                          lambda t: self.charge(call.name, "forward", t, work_of(call).forward()))  # fmt: skip

        return mapped(leaving, out)

    @staticmethod
    def _put_back(call: Call) -> None:
        for (container, key), marked, weight in zip(call.places, call.marked, call.weights, strict=True):
            if container[key] is marked:  # else the layer has changed it, as statistics are
                container[key] = weight


def work_of(call: Call) -> Layer:
    """The work of a call that has ended."""
    assert call.work is not None
    return call.work


class Attention(Layer):
    """The work of one attention: q (B, H, T, D), k (B, h, T', D), v (B, h, T', E) -> (B, H, T, E).

    Its gradient is four products of T x T', twice the two of its values; it is told in three parts, one an input.
    """

    def __init__(self, inputs: Sequence[mx.array], outputs: Sequence[mx.array]):
        q, k, v = inputs
        self.flops, self.moved = attention(q, k, v), size_of([q, k, v, *outputs])
        self.parts = iter((Work(2 * self.flops, self.moved + size_of([q, k, v])),))

    def forward(self) -> Work:
        """Two products."""
        return Work(self.flops, self.moved)

    def input_gradient(self) -> Work:
        """All of the gradient's work with the first of its inputs, nothing with the others."""
        return next(self.parts, Work())


def border(array: mx.array, backward: Callable[[Any], None], tangent: Callable[[Any], None] | None = None) -> mx.array:
    """The array itself (...); `backward` is told its cotangent when that is known, `tangent` its tangent."""

    @mx.custom_function
    def identity(x):
        return mx.stop_gradient(x)  # without it MLX would differentiate this body instead

    @identity.vjp
    def _(_primal, cotangent, _output):
        backward(cotangent)
        return cotangent

    @identity.jvp
    def _(_primal, moved):
        if tangent is not None:
            tangent(moved)
        return moved

    @identity.vmap
    def _(inputs, axes):
        return inputs, axes

    return cast(Callable[..., mx.array], identity)(array)


def evaluated(arrays: Any) -> None:
    """Computes arrays of any shape without losing what they were made of, inside of grad and jvp too.

    MLX drops the graph of what is evaluated in a jvp rule, and with it the gradient of an outer grad; inside of a vjp
    it keeps every graph.
    """

    @mx.custom_function
    def hook(zero):
        return mx.stop_gradient(zero)

    @hook.vjp
    def _(_primal, cotangent, _output):
        mx.eval(arrays)
        return cotangent

    zero = mx.array(0.0)
    mx.vjp(cast(Callable[..., mx.array], hook), [zero], [zero])


def floats(tree: Any) -> list[mx.array]:
    """The floating arrays of a nest, of any shape."""
    return [a for _, a in tree_flatten(tree) if isinstance(a, mx.array) and mx.issubdtype(a.dtype, mx.floating)]


def mapped(function: Callable[[mx.array], mx.array], tree: Any) -> Any:
    """The nest with a function applied to its floating arrays, of any shape."""

    def change(value: Any) -> Any:
        return function(value) if isinstance(value, mx.array) and mx.issubdtype(value.dtype, mx.floating) else value

    return tree_map(change, tree)
