"""Values picked out of each row of a batch."""

import mlx.core as mx

from ops.tensor.each import Names
from runtime.errors import UsageError
from runtime.op import Context, TensorOp, as_tuple


class Gather(TensorOp):
    """Picks entry i of each row: x[b, indices[b]], (B, ...) from x (B, N, ...).

    indices: one key for all inputs or one key for each, integers (B,) or (B, 1) in 0..N-1 (a greater one is undefined,
    as MLX leaves it); none: the greatest value of each row along its first axis.
    """

    def __init__(self, inputs: Names, outputs: Names, indices: Names = None, mode: Names = None, ds_id: Names = None):
        sources, places = as_tuple(inputs), as_tuple(indices)
        super().__init__([*places, *sources], list(as_tuple(outputs)), mode, ds_id)
        if len(places) not in (0, 1, len(sources)) or len(self.outputs) != len(sources):
            raise UsageError(
                f"Gather needs an output for each input and none, one or as many indices, got {len(sources)} inputs, "
                f"{len(self.outputs)} outputs and {len(places)} indices."
            )
        self.count = len(places)

    def forward(self, data: list[mx.array], state: Context) -> list[mx.array]:
        """One array (B, ...) for each input (B, N, ...)."""
        places, sources = data[: self.count], data[self.count :]
        if not places:
            return [x.max(axis=1) for x in sources]
        places = places * len(sources) if len(places) == 1 else places
        return [picked(x, place) for x, place in zip(sources, places, strict=True)]


def picked(x: mx.array, place: mx.array) -> mx.array:
    """x[b, place[b]] of x (B, N, ...) and place (B,) or (B, 1); UsageError for other shapes."""
    if x.ndim < 2 or place.size != x.shape[0] or not mx.issubdtype(place.dtype, mx.integer):
        raise UsageError(
            f"Gather needs (B, N, ...) and one integer index a row, got {x.shape} and {place.shape} {place.dtype}."
        )
    index = place.reshape(-1, *[1] * (x.ndim - 1))
    return mx.take_along_axis(x, mx.broadcast_to(index, (x.shape[0], 1, *x.shape[2:])), axis=1).squeeze(1)
