"""A module with everything in which arrays hide: lists, Sequentials, dictionaries, a frozen and a shared layer."""

import mlx.core as mx
import mlx.nn as nn


class Nest(nn.Module):
    """(B, 4) -> (B, 2); `rows[1]["in"]` is bf16, `tied` is the first layer once more, `still` is frozen."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.rows = [nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4))), {"in": nn.Linear(4, 4)}]
        self.rows[1]["in"].set_dtype(mx.bfloat16)
        self.tied = self.first
        self.still = nn.LayerNorm(4)
        self.still.freeze()
        self.last = nn.Linear(4, 2, bias=False)
        self._constant = mx.ones((4,))

    def __call__(self, x: mx.array) -> mx.array:
        x = self.tied(self.rows[0](self.first(x)))
        x = self.rows[1]["in"](x.astype(mx.bfloat16)).astype(mx.float32)
        return self.last(self.still(x * self._constant))


PATHS = [
    "first.weight", "first.bias", "rows.0.layers.0.weight", "rows.0.layers.0.bias", "rows.0.layers.2.layers.0.weight",
    "rows.0.layers.2.layers.0.bias", "rows.1.in.weight", "rows.1.in.bias", "tied.weight", "tied.bias", "still.bias",
    "still.weight", "last.weight",
]  # fmt: skip
TOTAL, TRAINABLE = 4 * 20 + 8 + 8, 4 * 20 + 8  # four layers of 4 x 4 + 4, a norm, the last layer
