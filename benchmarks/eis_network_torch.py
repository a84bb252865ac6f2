"""The EIS predictor on PyTorch for eis_network.py: parity, training steps and predictions; one JSON line.

Stands alone (torch and numpy). The layers, their names and the number of parameters are those of
models/eis_predictor.py and models/eis_encoder.py, so that their weights load as they are.
"""

import argparse
import json
import math
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from turns import repeated, resident_gb, steps_timed, timed

POINTS, WAVES, FINE, TURNS, OFFSETS, SMALLEST = 12, 6, 6, 4, 5, -6.0  # as in the files of models/
PLACE = POINTS + 1 + 2 * OFFSETS


NONLINEARITIES = {"relu": F.relu, "gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh")}


def embed(places):
    """Places (...) on the grid as numbers (..., 23)."""
    cell = places.round().clamp(0, POINTS - 1)
    one_hot = (cell[..., None] == torch.arange(POINTS, device=places.device)).float()
    octaves = math.pi * 2.0 ** torch.arange(OFFSETS, device=places.device)
    offset = (places - cell)[..., None] * octaves
    return torch.cat([one_hot, places[..., None] / POINTS - 0.5, offset.sin(), offset.cos()], dim=-1)


def truncated(offset, weight, centre, width):
    """ln of a mixture of logistic densities cut to [-.5, .5], at offsets (...); the parts are (..., mixture)."""
    scale = width.exp()
    z = ((offset[..., None] - centre) / scale).abs()
    log_pdf = -z - 2 * torch.log1p(torch.exp(-z)) - width
    inside = F.logsigmoid((0.5 - centre) / scale) + F.logsigmoid((0.5 + centre) / scale)
    return torch.logsumexp(weight + log_pdf - inside - torch.log(-torch.expm1(-1 / scale)), dim=-1)


def layers(*sizes):
    """Linear layers of these (inputs, outputs)."""
    return nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in sizes)


class Encoder(nn.Module):
    """Spectra (B, P, 4) and known parameters (B, 5) with their mask (B, 5) -> (B, hidden)."""

    def __init__(self, hidden: int, width: int, slots: int, depth: int, nonlinearity: str):
        super().__init__()
        self.activation = NONLINEARITIES[nonlinearity]
        self.points = layers((5 + 2 * (WAVES + FINE + TURNS), width), (width, width))
        self.score, self.value = nn.Linear(width, slots), nn.Linear(width, width // 4)
        self.summary = nn.Linear(3 + 5 * (PLACE + 1), hidden)
        self.enter = nn.Linear(slots * (width // 4), hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(depth))
        self.blocks = nn.ModuleList(layers((hidden, hidden), (hidden, hidden)) for _ in range(depth))

    def features(self, x):
        """Numbers of each point (B, P, 37) and the mean of ln |Z| (B, 1)."""
        present, real, imaginary = x[..., 3:], x[..., 1:2], x[..., 2:3]
        size = (real**2 + imaginary**2).clamp(min=1e-20).sqrt()
        scale = (size.log() * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)
        level, relative = size.log() - scale[:, None], (-scale).exp()[:, None]
        octaves = 2.0 ** torch.arange(max(WAVES, FINE, TURNS), device=x.device)
        angles = [x[..., :1] * (math.pi / 12 * octaves[:WAVES]), level * octaves[:FINE],
                  torch.atan2(imaginary, real) * (2 * octaves[:TURNS])]  # fmt: skip
        found = [level, real / size, imaginary / size, (real * relative).clamp(-10, 10),
                 (imaginary * relative).clamp(-10, 10)]  # fmt: skip
        found += [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)]
        return torch.cat(found, dim=-1) * present, scale

    def forward(self, x, known, known_mask):
        """The context of every row."""
        present = x[..., 3:]
        count = present.sum(dim=1)
        p, scale = self.features(x)
        given = torch.cat([embed(known) * known_mask[..., None], known_mask[..., None]], dim=-1)
        whole = [scale / 3 - 2, count.clamp(min=1).log() / 3 - 1, (count > 0).float(), given.flatten(1)]
        for layer in self.points:
            p = self.activation(layer(p))
        share = torch.where(present > 0, self.score(p), -1e9).softmax(dim=1) * present
        value = self.value(p)
        h = self.enter((share.to(value.dtype).mT @ value).flatten(1)) + self.summary(torch.cat(whole, dim=-1))
        for norm, (first, second) in zip(self.norms, self.blocks):  # noqa: B905
            h = h + second(self.activation(first(norm(h))))
        return self.activation(h)


class Network(nn.Module):
    """models.eis_predictor.EISPredictor."""

    def __init__(self, hidden: int, width: int, slots: int, depth: int, mixture: int, nonlinearity: str = "gelu_tanh"):
        super().__init__()
        self.encoder = Encoder(hidden, width, slots, depth, nonlinearity)
        self.activation = self.encoder.activation
        self.before = layers(*((i * PLACE, hidden) for i in range(1, 5)))
        self.choose = layers(*[(hidden, hidden // 2)] * 5)
        self.cell = layers(*[(hidden // 2, POINTS)] * 5)
        self.refine = layers(*[(hidden // 2 + POINTS, hidden // 4)] * 5)
        self.place = layers(*[(hidden // 4, 3 * mixture)] * 5)
        self.residual = layers((hidden + 5 * PLACE, hidden // 2), (hidden // 2, 1))

    def cells(self, context, places, parameter: int):
        """Logits (B, 12) of a parameter's cell given the places (B, parameter) before it, and what `inside` takes."""
        h = context
        if parameter:
            h = h + self.before[parameter - 1](embed(places).flatten(1))
        h = self.activation(self.choose[parameter](self.activation(h)))
        return self.cell[parameter](h).float(), h

    def inside(self, h, cell, parameter: int):
        """ln weights, centres and ln widths (B, mixture) of the mixture inside a cell (B,) int, in cells."""
        out = self.activation(self.refine[parameter](torch.cat([h, F.one_hot(cell, POINTS).to(h.dtype)], dim=-1)))
        weight, centre, width = self.place[parameter](out).float().chunk(3, dim=-1)
        return weight.log_softmax(dim=-1), 0.6 * centre.tanh(), (width - 1).clamp(min=SMALLEST)

    def log_density(self, context, places):
        """ln of the probability of each cell and ln of the density in it at places (B, 5), (B, 5) each."""
        chosen, density = [], []
        cells = places.round().clamp(0, POINTS - 1).long()
        for i in range(5):
            logits, h = self.cells(context, places[:, :i], i)
            chosen.append(logits.log_softmax(dim=-1).gather(1, cells[:, i : i + 1])[:, 0])
            density.append(truncated(places[:, i] - cells[:, i], *self.inside(h, cells[:, i], i)))
        return torch.stack(chosen, dim=-1), torch.stack(density, dim=-1)

    def log_residual(self, context, places):
        """log10 of the mean |dZ| over the mean |Z| between the spectrum and circuits at places (B, 5), (B,)."""
        h = self.activation(self.residual[0](torch.cat([context, embed(places).flatten(1).to(context.dtype)], dim=-1)))
        return self.residual[1](h)[:, 0].float()

    def likeliest(self, context, known, known_mask):
        """Places (B, 5): each parameter's likeliest cell given those before, the heaviest component's centre in it."""
        found = known[:, :0]
        for i in range(5):
            logits, h = self.cells(context, found, i)
            cell = logits.argmax(dim=-1)
            weight, centre, _ = self.inside(h, cell, i)
            centre = centre.gather(1, weight.argmax(dim=-1, keepdim=True))[:, 0].clamp(-0.5, 0.5)
            place = torch.where(known_mask[:, i] > 0, known[:, i], cell + centre)
            found = torch.cat([found, place[:, None]], dim=1)
        return found

    def forward(self, batch):
        """The loss of losses/eis.py with its defaults, and the mean NLL in nats."""
        context = self.encoder(batch["x"], batch["known"], batch["known_mask"])
        chosen, density = self.log_density(context, batch["target"])
        nll = -((chosen + density) * (1 - batch["known_mask"])).sum(dim=1)
        seen = (batch["x"][..., 3].sum(dim=1) > 0).float()
        error = seen * (self.log_residual(context, batch["candidate"]) - batch["residual"]) ** 2
        return (nll + 0.5 * error).mean(), nll.detach().mean()


class Prediction(nn.Module):
    """From a spectrum to the likeliest places, as one module, which torch.compile takes whole."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, x, known, known_mask):
        """Places (B, 5)."""
        return self.network.likeliest(self.network.encoder(x, known, known_mask), known, known_mask)


def stored(path: Path) -> tuple[Network, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The network, the batch and what ours says of it, as eis_network.py wrote them."""
    parts: dict[str, dict[str, np.ndarray]] = {"weights": {}, "batch": {}, "ours": {}, "options": {}}
    with np.load(path) as held:
        for name in held.files:
            part, _, key = name.partition("/")
            parts[part][key] = held[name]
    network = Network(**{name: value.item() for name, value in parts["options"].items()})
    network.load_state_dict({name: torch.from_numpy(array) for name, array in parts["weights"].items()})
    return network, parts["batch"], parts["ours"]


def on(device: torch.device, batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """A batch of host arrays, on the device."""
    return {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in batch.items()}


def differences(network: Network, batch, ours) -> dict[str, float]:
    """The largest differences from ours in ln density, log10 of the residual and places, in full float32."""
    torch.set_float32_matmul_precision("highest")
    with torch.inference_mode():
        context = network.encoder(batch["x"], batch["known"], batch["known_mask"])
        chosen, density = network.log_density(context, batch["target"])
        found = {"log_density": torch.stack([chosen, density]), "log_residual": network.log_residual(
            context, batch["candidate"]), "likeliest": network.likeliest(
            context, batch["known"], batch["known_mask"])}  # fmt: skip
    torch.set_float32_matmul_precision("high")
    return {name: float(np.abs(value.cpu().numpy() - ours[name]).max()) for name, value in found.items()}


def trained(given, network: Network, batch, device: torch.device) -> dict:
    """Training steps, each from a batch on the host."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01, fused=device.type == "cuda")
    inner = torch.compile(network) if given.compile else network

    def turn(steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=given.precision == "bf16"):
                loss, _ = inner(on(device, batch))
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) / steps

    found = steps_timed(turn, given.seconds)
    return {**found, "samples_s": round(1e3 * given.batch / found["median_ms"])}


def predicted(given, network: Network, batch, device: torch.device) -> dict:
    """Predictions, each from a batch on the host to places on the host."""
    inner = Prediction(network)
    inner = torch.compile(inner) if given.compile else inner
    asked = {name: batch[name] for name in ("x", "known", "known_mask")}

    def once():
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=given.precision == "bf16"):
            return inner(**on(device, asked)).cpu().numpy()

    begin = time.perf_counter()
    once()
    first = time.perf_counter() - begin
    repeated(once, 0)
    return {"first_s": round(first, 2), **timed(once, given.seconds)}


def main() -> None:
    """One measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="weights, batch and our numbers, written by eis_network.py")
    parser.add_argument("--task", choices=["parity", "train", "predict"], default="parity")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, help="left out: as PyTorch chooses")
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    device = torch.device("cuda" if given.device == "gpu" else "cpu")
    torch.set_float32_matmul_precision("high")  # TF32, as MLX does
    if given.threads:
        torch.set_num_threads(given.threads)
    network, batch, ours = stored(given.file)
    network = network.to(device)
    batch = {name: array[: given.batch] for name, array in batch.items()}
    before = resident_gb()
    if given.task == "parity":
        rows = len(ours["likeliest"])
        found = differences(network, on(device, {name: array[:rows] for name, array in batch.items()}), ours)
    else:
        found = (trained if given.task == "train" else predicted)(given, network, batch, device)
        peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else resident_gb() - before
        found["peak_gb"] = round(peak, 4)
    print(json.dumps({
        "variant": "torch compiled" if given.compile else "torch", "task": given.task, "batch": given.batch,
        "precision": given.precision, **found, "parameters": sum(p.numel() for p in network.parameters()),
        "device": device.type, "threads": torch.get_num_threads(), "torch": torch.__version__,
    }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
