"""The Tiny Recursive Model (arXiv 2510.04871, figure 1 and algorithm 3)."""

import mlx.core as mx

from models.recursive import Mixer, Puzzler, Reasoning


class TRM(Puzzler):
    """One small network that refines a latent z and an answer y in turn.

    A supervision step is `high` cycles of `low` updates z = net(z + y + x) and one y = net(y + z); only the last cycle
    has gradients. The defaults with mixer="attention" and 16 places of prefix are the published 6.8M parameters.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        hidden: int = 512,
        heads: int = 8,
        expansion: float = 4.0,
        layers: int = 2,
        high: int = 3,
        low: int = 6,
        mixer: Mixer = "attention",
        prefix: int = 16,
        ids: int = 0,
    ):
        super().__init__(vocabulary, length, hidden, layers, high, low, mixer, prefix, ids)
        self.net = Reasoning(layers, self.tokens, hidden, heads, expansion, mixer)

    def cycle(self, y: mx.array, z: mx.array, e: mx.array) -> tuple[mx.array, mx.array]:
        """One cycle of the states (B, T, D)."""
        for _ in range(self.low):
            z = self.net(z, y + e)
        return self.net(y, z), z

    def think(self, y: mx.array, z: mx.array, e: mx.array) -> tuple[mx.array, mx.array]:
        """One supervision step of the states (B, T, D)."""
        for _ in range(self.high - 1):
            y, z = self.cycle(y, z, e)
        return self.cycle(mx.stop_gradient(y), mx.stop_gradient(z), e)
