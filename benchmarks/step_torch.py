"""Times the same train steps on PyTorch: a worker of step_time.py; one JSON line.

Stands alone (torch only), so that it runs in an environment of its own. The UNet has the layers, shapes and
number of parameters of models/unet.py with the settings of step_mlx.py; tensors are (B, C, H, W).
"""

import argparse
import json
import math
import platform
import statistics
import time

import torch
import torch.nn.functional as F
from nets_torch import DiT, flow_matching, lowered, meanflow
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = {"mlp": (1024, 2), "unet": (8, 3, 32, 32), "unet36": (128, 3, 32, 32), "dit_b": (64, 4, 32, 32)}


class MLP(nn.Module):
    """Three hidden layers of 256 over the sample and its two times."""

    def __init__(self):
        super().__init__()
        sizes = [4, 256, 256, 256, 2]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))

    def forward(self, x, times):
        """x (B, 2), times (B, 2) -> (B, 2)."""
        h = torch.cat([x, times], dim=1)
        for layer in self.layers[:-1]:
            h = F.silu(layer(h))
        return self.layers[-1](h)


def norm(channels: int) -> nn.GroupNorm:
    """The group normalisation of models/layers.py."""
    return nn.GroupNorm(math.gcd(32, max(1, channels // 8), channels), channels, eps=1e-6)


class Attention(nn.Module):
    """x + self-attention over all pixels, one head."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm, self.qkv, self.leave = (
            norm(channels),
            nn.Linear(channels, 3 * channels),
            nn.Linear(channels, channels),
        )

    def forward(self, x):
        """(B, C, H, W) -> the same."""
        flat = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(flat).chunk(3, dim=-1)
        return x + self.leave(F.scaled_dot_product_attention(q, k, v)).transpose(1, 2).reshape(x.shape)


class Stage(nn.Module):
    """A residual block modulated by the embedding."""

    def __init__(self, inputs: int, outputs: int, embedding: int, attend: bool):
        super().__init__()
        self.norm1, self.norm2 = norm(inputs), norm(outputs)
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.modulate = nn.Linear(embedding, 2 * outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.attention = Attention(outputs) if attend else nn.Identity()

    def forward(self, x, embedding):
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        scale, shift = self.modulate(embedding)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(self.norm2(self.conv1(F.silu(self.norm1(x)))) * (1 + scale) + shift)
        return self.attention(self.skip(x) + self.conv2(h))


class UNet(nn.Module):
    """Encoder and decoder with concatenated skips; attention at some heights and in the middle."""

    def __init__(
        self, channels: int = 64, multipliers: tuple[int, ...] = (1, 2, 2), blocks: int = 1, attention: tuple = ()
    ):
        super().__init__()
        self.channels, embedding = channels, 4 * channels
        self.first, self.second = nn.Linear(2 * channels, embedding), nn.Linear(embedding, embedding)
        self.enter = nn.Conv2d(3, channels, 3, padding=1)
        now, left = channels, [channels]
        self.down, self.halve, self.up, self.grow = nn.ModuleList(), nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, multiplier in enumerate(multipliers):
            stages = nn.ModuleList()
            for _ in range(blocks):
                stages.append(Stage(now, multiplier * channels, embedding, 32 >> level in attention))
                now = multiplier * channels
                left.append(now)
            self.down.append(stages)
            if level < len(multipliers) - 1:
                self.halve.append(nn.Conv2d(now, now, 3, stride=2, padding=1))
                left.append(now)
        self.middle = nn.ModuleList([Stage(now, now, embedding, True), Stage(now, now, embedding, False)])
        for level, multiplier in reversed(list(enumerate(multipliers))):
            stages = nn.ModuleList()
            for _ in range(blocks + 1):
                stages.append(Stage(now + left.pop(), multiplier * channels, embedding, 32 >> level in attention))
                now = multiplier * channels
            self.up.append(stages)
            if level:
                self.grow.append(nn.Conv2d(now, now, 3, padding=1))
        self.norm, self.leave = norm(now), nn.Conv2d(now, 3, 3, padding=1)

    def forward(self, x, times):
        """x (B, 3, H, W), times (B, 2) -> (B, 3, H, W)."""
        half = self.channels // 2
        waves = torch.exp(torch.arange(half, device=x.device) * (-math.log(10_000.0) / half))
        angles = torch.stack([times[:, 0], times[:, 1] - times[:, 0]], dim=1)[:, :, None] * waves
        found = torch.cat([angles.cos(), angles.sin()], dim=-1).flatten(1).to(self.first.weight.dtype)
        embedding = F.silu(self.second(F.silu(self.first(found))))
        h = self.enter(x)
        left = [h]
        for level, stages in enumerate(self.down):
            for stage in stages:
                h = stage(h, embedding)
                left.append(h)
            if level < len(self.halve):
                h = self.halve[level](h)
                left.append(h)
        for stage in self.middle:
            h = stage(h, embedding)
        for level, stages in enumerate(self.up):
            for stage in stages:
                h = stage(torch.cat([h, left.pop()], dim=1), embedding)
            if level < len(self.grow):
                h = self.grow[level](F.interpolate(h, scale_factor=2, mode="nearest"))
        return self.leave(F.silu(self.norm(h)))


def main() -> None:
    """Two warm-up steps, then turns for `--seconds`, at least three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(SHAPES), default="mlp")
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--loss", choices=["fm", "mf25", "mf100"], default="fm")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true", help="torch.compile of the loss")
    given = parser.parse_args()
    gpu = given.device == "gpu" or given.device == "auto" and torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")  # TF32, as MLX does
    kinds = {"mlp": MLP, "unet": UNet, "unet36": lambda: UNet(128, (1, 2, 2), 3, (16,)), "dit_b": DiT}
    model = kinds[given.model]().to(device)
    if gpu and "unet" in given.model:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=gpu)
    x1 = torch.randn(SHAPES[given.model], device=device)
    share = {"fm": None, "mf25": 0.25, "mf100": 1.0}[given.loss]

    called = lowered(model, torch.bfloat16) if given.precision == "bf16" else model

    def loss_of(x):
        return flow_matching(called, x) if share is None else meanflow(called, x, share)

    evaluate = torch.compile(loss_of) if given.compile else loss_of

    def step() -> None:
        # the fused attention kernels have no forward-mode derivative
        kinds = [SDPBackend.MATH] if share else [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION,
                                                 SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH]  # fmt: skip
        with sdpa_kernel(kinds):
            loss = evaluate(x1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def turn(steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        if gpu:
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) / steps

    turn(2)
    steps, times, started = max(1, round(0.3 / turn(1))), [], time.perf_counter()
    while time.perf_counter() - started < given.seconds or len(times) < 3:
        times.append(1e3 * turn(steps))
    line = {
        "variant": "torch compiled" if given.compile else "torch", "model": given.model, "loss": given.loss,
        "precision": given.precision, "batch": SHAPES[given.model][0],
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if gpu else None,
        "parameters": sum(p.numel() for p in model.parameters()), "median_ms": round(statistics.median(times), 3),
        "best_ms": round(min(times), 3), "turns": len(times), "steps_a_turn": steps, "device": device.type,
        "torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads(),
    }  # fmt: skip
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
