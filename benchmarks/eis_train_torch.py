"""Trains the PyTorch twin on spectra in files, for scripts/eis_pipeline.py --engine pytorch; one JSON line.

Stands alone (torch and numpy). `start` holds the options and the first weights by our names, `out` gets the last ones;
the data are those of dataloaders/eis_shards.py. AdamW, warm-up and half a cosine, as the experiments have them.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from eis_network_torch import on, stored
from turns import resident_gb


class Rows:
    """Rows of memory-mapped parts, by number."""

    def __init__(self, folder: Path):
        self.plan = json.loads((folder / "data.json").read_text())
        self.parts = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))]

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """A batch."""
        number, place = np.divmod(indices, self.plan["part"])
        lines = np.empty((len(indices), self.parts[0].shape[1]), np.float32)
        for which in np.unique(number):
            lines[number == which] = self.parts[which][place[number == which]]
        found = {key: lines[:, start:stop] for key, (start, stop) in self.plan["columns"].items()}
        return found | {"x": found["x"].reshape(len(lines), -1, 4), "residual": found["residual"][:, 0]}


def factor(step: int, warmup: int, total: int) -> float:
    """What the learning rate is multiplied by, as optimizers.schedules.Cosine does."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / (total - warmup), 1)))


def main() -> None:
    """One training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("start", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=0)
    parser.add_argument("--clip", type=float, default=math.inf, help="largest global gradient norm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
    given = parser.parse_args()
    gpu = given.device == "gpu" or given.device == "auto" and torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    torch.set_float32_matmul_precision("high")
    network, _, _ = stored(given.start)
    network = network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=given.rate, weight_decay=0.01, fused=gpu)
    rows, rng = Rows(given.data), np.random.default_rng(given.seed)
    each, nll, begin, before = rows.plan["rows"] // given.batch, [], time.perf_counter(), resident_gb()
    for step in range(given.steps):
        if step % each == 0:
            order = rng.permutation(rows.plan["rows"])
        picked = order[step % each * given.batch :][: given.batch]
        optimizer.param_groups[0]["lr"] = given.rate * factor(step, given.warmup, given.steps)
        optimizer.zero_grad()
        loss, of_batch = network(on(device, rows.take(picked)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), given.clip)
        optimizer.step()
        nll.append(of_batch)
    last = float(torch.stack(nll[-each:]).mean())  # waits for the device
    seconds = time.perf_counter() - begin
    np.savez(given.out, **{name: value.cpu().numpy() for name, value in network.state_dict().items()})
    peak = torch.cuda.max_memory_allocated() / 1e9 if gpu else resident_gb() - before
    print(json.dumps({
        "steps": given.steps, "seconds": round(seconds, 2), "samples_s": round(given.steps * given.batch / seconds),
        "last_epoch_nll": round(last, 4), "peak_gb": round(peak, 3), "device": device.type, "torch": torch.__version__,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
