"""What a step makes of the gradients it took: means over the processes, then float32, then norms."""

from collections.abc import Collection, Container

import mlx.core as mx

from runtime.op import Batch
from runtime.world import World

BITS = 8  # of a number that is told
Gradients = dict[str, Batch]  # by what they are of (a loss, or the key of given ones), then by leaf or vector


def averaged(
    world: World, losses: Batch, gradients: Gradients, changed: Batch, told: Batch, sharded: Container[str] = ()
) -> tuple[Batch, Gradients, Batch, Batch]:
    """All of these as means over the processes; what only counts stays as it is, it is the same in all of them.

    Gradients travel as they come, in the precision of the forward pass. Those of `sharded` leaves are means already.
    told: numbers whose bits are wishes; they come back as `wished`.
    """
    if not world.many:
        return losses, gradients, changed, told
    told = {name: wishes(number) for name, number in told.items()}
    floating = {path: array for path, array in changed.items() if mx.issubdtype(array.dtype, mx.floating)}
    whole = {key: {p: g for p, g in own.items() if p not in sharded} for key, own in gradients.items()}
    kinds = [losses, floating, told, *whole.values()]
    means = world.mean({f"{i}|{name}": array for i, own in enumerate(kinds) for name, array in own.items()})
    losses, floating, told, *parts = ({name: means[f"{i}|{name}"] for name in own} for i, own in enumerate(kinds))
    told = {name: wished(array) for name, array in told.items()}
    return losses, {k: own | p for (k, own), p in zip(gradients.items(), parts, strict=True)}, changed | floating, told


def wishes(number: mx.array) -> mx.array:
    """The bits of a 0-d integer, the lowest first, as 0 or 1, (BITS,) float32."""
    return (mx.right_shift(number, mx.array([*range(BITS)])) & 1).astype(mx.float32)


def wished(means: mx.array) -> mx.array:
    """One number, 0-d int32, with the bits of which some process has any, from their means (BITS,).

    The host writes and reads such a number in every step. On CUDA, MLX keeps a number where both can see it, but moves
    the smallest array that one of them had, which waits for all that was launched: the host could never run ahead.
    """
    return mx.where(means > 0, mx.array([1 << i for i in range(BITS)]), 0).sum()


def widened(gradients: Gradients, given: Collection[str | None], scale: mx.array | None) -> Gradients:
    """Gradients (any shape) in float32, or float64; those of losses, not of `given`, without the factor of fp16."""
    found: Gradients = {}
    for source, grads in gradients.items():
        wide = {path: g if g.dtype == mx.float64 else g.astype(mx.float32) for path, g in grads.items()}
        found[source] = wide if scale is None or source in given else {path: g / scale for path, g in wide.items()}
    return found
