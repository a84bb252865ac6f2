"""What mx.compile makes of a function."""

import io
import re

import mlx.core as mx


def kernels(function, *inputs):
    """Names of the elementwise kernels of a compiled function."""
    graph = io.StringIO()
    mx.export_to_dot(graph, *mx.compile(function)(*inputs))
    names = re.findall(r'label ="(\w+)', graph.getvalue())
    return [n for n in names if n.startswith("Compiled") or n in ("AsType", "Sigmoid", "Multiply", "Square", "Add")]
