"""The Hierarchical Reasoning Model (arXiv 2506.21734, section 2 and figure 4)."""

import mlx.core as mx

from models.recursive import Mixer, Puzzler, Reasoning


class HRM(Puzzler):
    """Two networks that update two latent states at different paces, z often and y rarely.

    A supervision step is `high` cycles of `low` updates z = low_net(z + y + x) and one y = high_net(y + z); only the
    last update of each has gradients. layers: blocks of either network. With the defaults these are the published 27.3M
    parameters, and the puzzle's embedding takes one place. Source: github.com/sapientinc/HRM, models/hrm/hrm_act_v1.py.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        hidden: int = 512,
        heads: int = 8,
        expansion: float = 4.0,
        layers: int = 4,
        high: int = 2,
        low: int = 2,
        mixer: Mixer = "attention",
        prefix: int = 1,
        ids: int = 0,
    ):
        super().__init__(vocabulary, length, hidden, layers, high, low, mixer, prefix, ids)
        self.high_net, self.low_net = (
            Reasoning(layers, self.tokens, hidden, heads, expansion, mixer) for _ in range(2)
        )

    def think(self, y: mx.array, z: mx.array, e: mx.array) -> tuple[mx.array, mx.array]:
        """One supervision step of the states (B, T, D)."""
        for update in range(1, self.high * self.low):
            z = self.low_net(z, y + e)
            if update % self.low == 0:
                y = self.high_net(y, z)
        y = mx.stop_gradient(y)
        z = self.low_net(mx.stop_gradient(z), y + e)
        return self.high_net(y, z), z
