"""Functions with derivatives of their own, `mx.custom_function`, which stay on the stream they were called on.

MLX computes the derivative of a built-in operation on the operation's stream, but calls a rule written in Python with
whatever stream is the default when gradients are taken: the backward pass of a part that ran on another stream
(runtime/streams.py) would come back to this one.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx


class custom_function:  # noqa: N801  called and used as a decorator in place of MLX's
    """`mx.custom_function` of a body, whose rules `jvp`, `vjp` and `vmap` run on the stream of the call.

    Called with arrays and nests of them, positional, as MLX's. Rules must be there before the first call.
    """

    def __init__(self, body: Callable):
        self.body, self.rules = body, {}
        self.made: list[tuple[mx.Stream, Any]] = []  # streams can be compared, but equal ones hash differently
        self.__doc__ = body.__doc__

    def jvp(self, rule: Callable) -> Callable:
        """The derivative along tangents: rule(primals, tangents) -> tangents of the outputs."""
        self.rules["jvp"] = rule
        return rule

    def vjp(self, rule: Callable) -> Callable:
        """The gradient: rule(primals, cotangents, outputs) -> cotangents of the inputs."""
        self.rules["vjp"] = rule
        return rule

    def vmap(self, rule: Callable) -> Callable:
        """Over an added axis: rule(inputs, axes) -> outputs and their axes."""
        self.rules["vmap"] = rule
        return rule

    def __call__(self, *inputs: Any) -> Any:
        """What the body gives, with these derivatives."""
        now = mx.default_stream(mx.default_device())
        for stream, function in self.made:
            if stream == now:
                return function(*inputs)
        function = mx.custom_function(self.body)
        for name, rule in self.rules.items():
            getattr(function, name)(on(now, rule))
        self.made.append((now, function))
        return function(*inputs)


def on(stream: mx.Stream, rule: Callable) -> Callable:
    """`rule`, with that stream as the default meanwhile."""

    def run(*given: Any) -> Any:
        if mx.default_stream(mx.default_device()) == stream:
            return rule(*given)
        with mx.stream(stream):
            return rule(*given)

    return run
