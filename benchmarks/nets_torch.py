"""PyTorch twins of models/dit.py and of the flow-matching and MeanFlow losses, for step_torch.py; torch alone."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call


def normed(x):
    """x (..., D) without mean and scale; by float32, since on CUDA the tangent of a bfloat16 layer norm is float32."""
    return F.layer_norm(x.float(), x.shape[-1:], eps=1e-6).to(x.dtype)


class Block(nn.Module):
    """A DiT block with adaLN-Zero."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads, self.modulate = heads, nn.Linear(hidden, 6 * hidden)
        self.qkv, self.leave = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.widen, self.narrow = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x, condition):
        """(B, L, D), (B, D) -> (B, L, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulate(condition)[:, None].chunk(6, dim=-1)
        h = normed(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + gate1 * self.leave(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        h = normed(x) * (1 + scale2) + shift2
        return x + gate2 * self.narrow(F.gelu(self.widen(h), approximate="tanh"))


class DiT(nn.Module):
    """DiT-B/2 on 32 x 32 x 4 latents, two times, no classes; the number of parameters of models/dit.py."""

    def __init__(self, hidden: int = 768, depth: int = 12, heads: int = 12, patch: int = 2, channels: int = 4):
        super().__init__()
        self.patch, self.channels, self.features = patch, channels, 256
        self.enter = nn.Linear(patch * patch * channels, hidden)
        self.register_buffer("positions", torch.zeros(1, (32 // patch) ** 2, hidden))
        self.times = nn.ModuleList(
            nn.Sequential(nn.Linear(256, hidden), nn.SiLU(), nn.Linear(hidden, hidden)) for _ in range(2)
        )
        self.blocks = nn.ModuleList(Block(hidden, heads) for _ in range(depth))
        self.modulate = nn.Linear(hidden, 2 * hidden)
        self.leave = nn.Linear(hidden, patch * patch * channels)

    def waves(self, time):
        """(B,) -> (B, 256)."""
        angles = time[:, None] * torch.exp(torch.arange(128, device=time.device) * (-math.log(10_000.0) / 128))
        return torch.cat([angles.cos(), angles.sin()], dim=1).to(self.enter.weight.dtype)

    def forward(self, x, times):
        """x (B, 4, 32, 32), times (B, 2) -> the same as x."""
        count, side = x.shape[0], x.shape[2] // self.patch
        embedded = (m(self.waves(t)) for m, t in zip(self.times, (times[:, 0], times[:, 1] - times[:, 0]), strict=True))
        condition = F.silu(sum(embedded))
        h = x.unflatten(3, (side, self.patch)).unflatten(2, (side, self.patch)).permute(0, 2, 4, 3, 5, 1)
        h = self.enter(h.flatten(3).flatten(1, 2)) + self.positions
        for block in self.blocks:
            h = block(h, condition)
        shift, scale = self.modulate(condition)[:, None].chunk(2, dim=-1)
        h = self.leave(normed(h) * (1 + scale) + shift)
        h = h.reshape(count, side, side, self.patch, self.patch, self.channels).permute(0, 5, 1, 3, 2, 4)
        return h.reshape(x.shape)


def lowered(model, dtype):
    """The model with x and the weights cast to dtype in each call; times stay float32, the output is float32.

    In place of autocast, whose norms fail under torch.func.jvp with a backward pass (types don't match).
    """

    def call(x, times):
        weights = {name: array.to(dtype) for name, array in (*model.named_parameters(), *model.named_buffers())}
        return functional_call(model, weights, (x.to(dtype), times)).float()

    return call


def flow_matching(model, x1):
    """The mean squared error on the velocity."""
    x0, t = torch.randn_like(x1), torch.rand(x1.shape[0], device=x1.device)
    wide = t.reshape(-1, *[1] * (x1.ndim - 1))
    out = model((1 - wide) * x0 + wide * x1, torch.stack([t, torch.ones_like(t)], dim=1))
    return (out - (x1 - x0)).square().mean()


def meanflow(model, x1, share: float):
    """MeanFlow as losses/meanflow.py writes it: torch.func.jvp on the first `share` of the rows."""
    x0 = torch.randn_like(x1)
    r, t = torch.rand(2, x1.shape[0], device=x1.device).sort(dim=0).values
    moving = round(share * len(x1))
    t = torch.where(torch.arange(len(x1), device=x1.device) < moving, t, r)
    wide = r.reshape(-1, *[1] * (x1.ndim - 1))
    z, v = (1 - wide) * x0 + wide * x1, x1 - x0

    def at(z, r):
        return model(z, torch.stack([r, t[:moving]], dim=1))

    u, slope = torch.func.jvp(at, (z[:moving], r[:moving]), (v[:moving], torch.ones_like(r[:moving])))
    if moving < len(x1):
        still = model(z[moving:], torch.stack([r, t], dim=1)[moving:])
        u, slope = torch.cat([u, still]), torch.cat([slope, torch.zeros_like(still)])
    target = (v + (t - r).reshape(wide.shape) * slope).detach()
    squares = (u - target).square().flatten(1).sum(dim=1)
    return (squares / (squares + 1e-2).detach()).mean()
