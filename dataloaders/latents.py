"""Latents of an autoencoder as their means and deviations, from sharded files; every draw takes a fresh sample."""

from pathlib import Path

import numpy as np

from dataloaders.safetensors import Mapped, mapped
from dataloaders.source import Source, digest
from runtime.errors import UsageError
from runtime.op import NumpyBatch

SPREADS = ("std", "logvar")
PROBES = 16  # rows of each shard that enter the fingerprint


class Latents(Source):
    """z = scale (mean + std eps), (h, w, c), from the shards `root/<part>/*.safetensors` that make_latents.py writes.

    A shard holds "mean" (N, h, w, c) with "std" or "logvar" alike, "label" (N,), and optionally the mirrored image's
    "mean_flip" and "std_flip" or "logvar_flip", taken half of the time where `flip` is true. eps and the choice come
    from the batch's own generator, so that every epoch sees other samples and a resumed run the same ones. Shards are
    memory-mapped. classes: how many labels there may be.
    """

    def __init__(
        self,
        root: str = "data/imagenet_latents",
        part: str = "train",
        scale: float = 0.18215,
        classes: int = 1000,
        flip: bool = True,
    ):
        if scale <= 0 or classes < 0:
            raise UsageError(f"Latents: scale must be positive and classes at least 0, got {scale} and {classes}.")
        folder = Path(root) / part
        self.paths = sorted(folder.glob("*.safetensors"))
        if not self.paths:
            raise UsageError(
                f"there are no latents in {folder.absolute()}: write {part} shards there with scripts/make_latents.py,"
                f" out={root}."
            )
        self.shards = [checked(path, classes) for path in self.paths]
        if len({(shard["mean"].shape[1:], *sorted(shard)) for shard in self.shards}) > 1:
            of = {path.name: (sorted(s), s["mean"].shape[1:]) for path, s in zip(self.paths, self.shards, strict=True)}
            raise UsageError(f"the shards in {folder} differ in arrays or shapes: {of}.")
        self.ends = np.cumsum([len(shard["mean"]) for shard in self.shards])
        self.scale, self.flip = np.float32(scale), flip and "mean_flip" in self.shards[0]
        self.shape, self.classes = tuple(self.shards[0]["mean"].shape[1:]), classes

    def __len__(self) -> int:
        return int(self.ends[-1])

    def take(self, indices: np.ndarray, rng: np.random.Generator) -> NumpyBatch:
        """Fresh samples of these rows; UsageError where a stored row is not finite."""
        mirrored = rng.random(len(indices)) < (0.5 if self.flip else 0)
        eps = rng.standard_normal((len(indices), *self.shape), dtype=np.float32)
        z, label = np.empty_like(eps), np.zeros(len(indices), np.int32)
        which = np.searchsorted(self.ends, indices, side="right")
        for number in np.unique(which):
            shard, first = self.shards[number], self.ends[number] - len(self.shards[number]["mean"])
            for ending, chosen in (("", which == number), ("_flip", (which == number) & mirrored)):
                if chosen.any():
                    mean, std = moments(shard, indices[chosen] - first, ending)
                    z[chosen] = mean + std * eps[chosen]
            if "label" in shard:
                label[which == number] = shard["label"].rows(indices[which == number] - first)
        z *= self.scale
        if not np.isfinite(z).all():
            row = int(np.flatnonzero(~np.isfinite(z).reshape(len(z), -1).all(axis=1))[0])
            raise UsageError(f"{self.paths[which[row]]} holds NaN or infinite latents (row {indices[row]} of all); "
                             "make it anew.")  # fmt: skip
        return {"x": z, "label": label} if self.classes else {"x": z}

    def fingerprint(self) -> str:
        """A hash of the scale and of shapes and a few rows of every shard."""
        parts = []
        for shard in self.shards:
            rows = np.unique(np.linspace(0, len(shard["mean"]) - 1, PROBES).astype(np.int64))
            parts += [(name, value.shape, value.rows(rows).tobytes()) for name, value in sorted(shard.items())]
        return digest("Latents", float(self.scale), self.classes, *parts)


def moments(shard: dict[str, Mapped], rows: np.ndarray, ending: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of rows of a shard, (n, h, w, c) each."""
    mean = shard[f"mean{ending}"].rows(rows)
    if f"std{ending}" in shard:
        return mean, shard[f"std{ending}"].rows(rows)
    return mean, np.exp(shard[f"logvar{ending}"].rows(rows) / 2)


def checked(path: Path, classes: int) -> dict[str, Mapped]:
    """The arrays of a shard; UsageError unless all that belongs together is there, alike, with labels in range."""
    shard = mapped(path)
    endings = ("", "_flip") if "mean_flip" in shard else ("",)
    needed = [f"mean{ending}" for ending in endings] + (["label"] if classes else [])
    spread = next((name for name in SPREADS if name in shard), "std")
    needed += [f"{spread}{ending}" for ending in endings]
    if lacks := [name for name in needed if name not in shard]:
        raise UsageError(f"{path} lacks {', '.join(lacks)}; it has {', '.join(sorted(shard))}.")
    shape = shard["mean"].shape
    for name in needed:
        right = shape[:1] if name == "label" else shape
        if shard[name].shape != right or len(shape) != 4:
            raise UsageError(f"{path}: {name!r} is {shard[name].shape}; needed {right}, mean (N, h, w, c).")
    if classes:
        labels = shard["label"].rows(np.arange(shape[0]))
        if labels.min() < 0 or labels.max() >= classes:
            raise UsageError(f"{path}: labels must lie in 0..{classes - 1}, got {labels.min()}..{labels.max()}.")
    return shard
