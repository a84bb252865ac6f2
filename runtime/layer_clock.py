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


class LayerClock:
    """Times the layers of models while `attached`; `entries` and `spans` are those of the last step.

    models: by name; a module that is in several places has its first path. The order of entries is that of first use.
    """

    def __init__(self, models: Mapping[str, nn.Module], clock: Callable[[], float] = time.perf_counter):
        self.modules: dict[int, tuple[str, nn.Module]] = {}
        for name, model in models.items():
            for path, module in sorted(model.named_modules(), key=lambda pair: pair[0]):
                self.modules.setdefault(id(module), (f"{name}.{path}" if path else name, module))
        self.own = {key: self._own_slots(module) for key, (_, module) in self.modules.items()}
        self.leaf = {key: len(module.modules()) == 1 for key, (_, module) in self.modules.items()}
        self.entries: dict[str, Entry] = {}
        self.spans: list[Span] = []
        self._clock, self._open, self._last = clock, [OUTSIDE], 0.0

    @staticmethod
    def _own_slots(module: nn.Module) -> list[tuple[Any, Any]]:
        """Where the module keeps arrays that no module below it keeps."""
        below = [child for child in module.modules() if child is not module]
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
        """Within: calls of the models' layers and of MLX's attention are timed; classes are patched till the end."""
        held: list[tuple[Any, str, Any]] = []
        for kind in {type(module) for _, module in self.modules.values()}:
            call = next((vars(base)["__call__"] for base in kind.__mro__ if "__call__" in vars(base)), None)
            if call is not None:
                held.append((kind, "__call__", vars(kind).get("__call__")))
                kind.__call__ = self._timed(call)
        plain = mx.fast.scaled_dot_product_attention
        held.append((mx.fast, "scaled_dot_product_attention", plain))
        fast: Any = mx.fast
        fast.scaled_dot_product_attention = self._timed_attention(plain)
        try:
            yield
        finally:
            for owner, name, value in held:
                setattr(owner, name, value) if value is not None else delattr(owner, name)

    def _timed(self, call: Callable) -> Callable:
        clock = self

        def timed(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            path, _ = clock.modules.get(id(module), ("", None))
            if not path or clock._open[-1] == path:  # a stranger, or its base class's call
                return call(module, *args, **kwargs)
            own = clock.own[id(module)]
            weights = [container[key] for container, key in own]

            def within(marked: list[mx.array], args: Any, kwargs: Any) -> Any:
                for (container, key), value in zip(own, marked, strict=True):
                    container[key] = value
                try:
                    return call(module, *args, **kwargs)
                finally:
                    for (container, key), value, was in zip(own, marked, weights, strict=True):
                        if container[key] is value:  # else the layer has changed it, as statistics are
                            container[key] = was

            def work(inputs: Sequence[mx.array], outputs: Sequence[mx.array]) -> Layer:
                return Layer(module, inputs, weights, outputs, counted=clock.leaf[id(module)])

            return clock._call(path, within, weights, (args, kwargs), work)

        return timed

    def _timed_attention(self, plain: Callable) -> Callable:
        def timed(q: mx.array, k: mx.array, v: mx.array, **options: Any) -> mx.array:
            def work(inputs: Sequence[mx.array], outputs: Sequence[mx.array]) -> "Attention":
                return Attention(q, k, v, outputs)

            def within(_: list[mx.array], args: Any, kwargs: Any) -> Any:
                return plain(*args, **kwargs, **options)

            return self._call(f"{self._open[-1]}.scaled_dot_product", within, [], ((q, k, v), {}), work)

        return timed

    def _call(self, path: str, within: Callable, weights: list[mx.array], given: Any, work_of: Callable) -> Any:
        parent, inputs = self._open[-1], floats(given)
        self.charge(parent, "forward", inputs)
        began = self._last
        entry = self.entries.setdefault(path, Entry())
        entry.calls += 1
        late: list[Layer] = []  # known once there are outputs, which is before any derivative is taken

        def entering(array: mx.array) -> mx.array:
            return border(array, lambda c: self.charge(path, "backward", c, late[0].input_gradient()),
                          lambda t: self.charge(parent, "forward", t))  # fmt: skip

        def leaving(array: mx.array) -> mx.array:
            return border(array, lambda c: self.charge(parent, "backward", c),
                          lambda t: self.charge(path, "forward", t, late[0].forward()))  # fmt: skip

        def weighing(array: mx.array) -> mx.array:
            return border(array, lambda c: self.charge(path, "backward", c, late[0].weight_gradient(array)))

        marked = [weighing(w) if mx.issubdtype(w.dtype, mx.floating) else w for w in weights]
        args, kwargs = mapped(entering, given)
        self._open.append(path)
        try:
            out = within(marked, args, kwargs)
        finally:
            self._open.pop()
        late.append(work_of(inputs, floats(out)))
        self.charge(path, "forward", floats(out), late[0].forward())
        self.spans.append(Span(path, "call", began, self._last - began))
        return mapped(leaving, out)


class Attention(Layer):
    """The work of one attention: q (B, H, T, D), k (B, h, T', D), v (B, h, T', E) -> (B, H, T, E).

    Its gradient is four products of T x T', twice the two of its values; it is told in three parts, one an input.
    """

    def __init__(self, q: mx.array, k: mx.array, v: mx.array, outputs: Sequence[mx.array]):
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
