"""ResNet9 and ViT-Tiny on PyTorch for classifiers.py: steps on one batch, or the whole recipe; one JSON line.

Stands alone (torch and numpy). The networks have the layers and the number of parameters of models/resnet9.py and
models/vit.py, the recipe is that of examples/cifar10_resnet9.py; images are (B, C, H, W), channels last in memory.
"""

import argparse
import json
import statistics
import time
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


class Unit(nn.Module):
    """Convolution, pooling where asked, batch norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, momentum: float = 0.1, pool: bool = False):
        super().__init__()
        self.conv, self.norm, self.pool = nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), pool
        self.norm.momentum = momentum

    def forward(self, x):
        """(B, C, H, W) -> (B, outputs, H, W), pooled half of that."""
        h = self.conv(x)
        return F.leaky_relu(self.norm(F.max_pool2d(h, 2) if self.pool else h), 0.1)


class Level(nn.Module):
    """A pooled unit, then two more around which the image goes."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.enter = Unit(inputs, outputs, 0.2, pool=True)
        self.inner = nn.Sequential(Unit(outputs, outputs), Unit(outputs, outputs))

    def forward(self, x):
        """(B, C, H, W) -> (B, outputs, H / 2, W / 2)."""
        x = self.enter(x)
        return x + self.inner(x)


class ResNet9(nn.Module):
    """Logits of ten classes; 7,756,554 parameters with 64 channels."""

    def __init__(self, channels: int = 64):
        super().__init__()
        levels = (Level(channels << i, channels << i + 1) for i in range(3))
        self.body, self.head = nn.Sequential(Unit(3, channels, 0.2), *levels), nn.Linear(8 * channels, 10)

    def forward(self, x):
        """(B, 3, H, W) -> (B, 10)."""
        return self.head(self.body(x).amax(dim=(2, 3)))


class ViT(nn.Module):
    """DeiT's Tiny for patches of 4 x 4 pixels of 32 x 32 images, to logits of ten classes."""

    def __init__(self, hidden: int = 192, depth: int = 12, heads: int = 3):
        super().__init__()
        self.enter, self.token = nn.Linear(48, hidden), nn.Parameter(torch.zeros(1, 1, hidden))
        self.positions = nn.Parameter(torch.randn(1, 65, hidden) * 0.02)
        block = partial(nn.TransformerEncoderLayer, hidden, heads, 4 * hidden, 0.0, "gelu", batch_first=True,
                        norm_first=True, layer_norm_eps=1e-6)  # fmt: skip
        self.blocks = nn.Sequential(*(block() for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(hidden, 1e-6), nn.Linear(hidden, 10)

    def forward(self, x):
        """(B, 3, 32, 32) -> (B, 10)."""
        h = self.enter(F.unfold(x, 4, stride=4).transpose(1, 2))
        h = torch.cat([self.token.expand(len(x), 1, -1), h], dim=1) + self.positions
        return self.head(self.norm(self.blocks(h)[:, 0]))


def augmented(x):
    """Normalised images (B, 3, 32, 32), each cropped from 4 mirrored pixels more, flipped, and cut out by 8 x 8."""
    count, device = len(x), x.device
    wide, steps = F.pad(x, (4, 4, 4, 4), mode="reflect"), torch.arange(32, device=device)
    top, left, down, right = (torch.randint(0, n, (count, 1), device=device) for n in (9, 9, 25, 25))
    columns = torch.where(torch.rand(count, 1, device=device) < 0.5, steps.flip(0), steps) + left
    wide = wide.gather(2, (steps + top)[:, None, :, None].expand(-1, 3, -1, 40))
    cut = wide.gather(3, columns[:, None, None].expand(-1, 3, 32, -1))
    rows, across = ((steps >= first) & (steps < first + 8) for first in (down, right))
    return cut.masked_fill((rows[:, :, None] & across[:, None])[:, None], 0.0)


def fitted(given, network, called, optimizer, device) -> dict:
    """Seconds and accuracy of the whole recipe, evaluation after each epoch included."""
    held = np.load(given.data)
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, STD))

    def images(name):
        x = torch.from_numpy(held[name]).to(device).permute(0, 3, 1, 2).float()
        return ((x / 255 - mean) / std).contiguous(memory_format=torch.channels_last)

    begin, accuracy = time.perf_counter(), []
    x, test = images("train_x"), images("test_x")
    y, truth = (torch.from_numpy(held[name]).long().to(device) for name in ("train_y", "test_y"))
    total = given.epochs * (len(x) // given.batch)
    warmup, step = total * 5 // 24, 0
    for _ in range(given.epochs):
        network.train()
        for rows in torch.randperm(len(x), device=device)[: len(x) // given.batch * given.batch].split(given.batch):
            factor = (step + 1) / warmup if step < warmup else 1 - (step - warmup) / (total - warmup)
            optimizer.param_groups[0]["lr"], step = given.rate * factor, step + 1
            loss = F.cross_entropy(called(augmented(x[rows])).float(), y[rows], label_smoothing=0.2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            right = [called(part).argmax(dim=1) == own for part, own in zip(test.split(1000), truth.split(1000))]  # noqa: B905
        accuracy.append(round(torch.cat(right).float().mean().item(), 4))
    return {"seconds": round(time.perf_counter() - begin, 2), "accuracy": accuracy[-1], "by_epoch": accuracy}


def timed(given, network, called, optimizer, device) -> dict:
    """Milliseconds per step on one batch."""
    x, y = torch.randn(given.batch, 3, 32, 32, device=device), torch.randint(0, 10, (given.batch,), device=device)
    x = x.contiguous(memory_format=torch.channels_last)

    def turn(steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(called(x).float(), y).backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) / steps

    first = turn(2)
    steps, times, started = max(1, round(1.0 / turn(2))), [], time.perf_counter()
    while time.perf_counter() - started < given.seconds or len(times) < 3:
        times.append(1e3 * turn(steps))
    return {"first_step_s": round(2 * first, 2), "median_ms": round(statistics.median(times), 3),
            "best_ms": round(min(times), 3), "turns": len(times)}  # fmt: skip


def main() -> None:
    """One measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["resnet9", "vit_tiny"], default="resnet9")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="gpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--epochs", type=int, default=0, help="0: steps on one batch")
    parser.add_argument("--rate", type=float, default=0.04)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--data", help="npz of train_x, train_y, test_x, test_y")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    device = torch.device("cuda" if given.device == "gpu" else "cpu")
    torch.manual_seed(given.seed)
    torch.set_float32_matmul_precision("high")  # TF32, as MLX does
    torch.backends.cudnn.benchmark = True
    network = ResNet9(given.channels) if given.model == "resnet9" else ViT()
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=given.device == "gpu")
    inner = torch.compile(network) if given.compile else network

    def called(x):
        with torch.autocast(device.type, torch.bfloat16, enabled=given.precision == "bf16"):
            return inner(x)

    found = (fitted if given.epochs else timed)(given, network, called, optimizer, device)
    peak = round(torch.cuda.max_memory_allocated() / 1e9, 2) if device.type == "cuda" else None
    print(json.dumps({
        "variant": "torch compiled" if given.compile else "torch", "model": given.model, "precision": given.precision,
        "batch": given.batch, "epochs": given.epochs, "parameters": sum(p.numel() for p in network.parameters()),
        **found, "peak_gb": peak, "device": device.type, "torch": torch.__version__,
    }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
