"""Overlap of masks."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from runtime.errors import UsageError
from traces.metrics.metric import MODES, Metric

EMPTY = 1e-4


class Dice(Metric):
    """2 |A and B| / (|A| + |B|) of masks (B, H, W, C) in [0, 1], averaged over images, then over channels.

    A channel that is empty in both masks of an image does not count. threshold: predictions above it are 1, None leaves
    them as they are. mask_overlap=False: a pixel belongs to its largest channel only. exclude_channels are left out;
    channel_mapping {channel: name} logs each channel too, as <output_name>_<name>; include_std logs the standard
    deviation over images (its mean over channels) as <name>_std. Raises UsageError for values outside [0, 1].
    """

    def __init__(self, true_key: str, pred_key: str, threshold: float | None = 0.5, mask_overlap: bool = True,
                 exclude_channels: int | Iterable[int] | None = None,
                 channel_mapping: Mapping[int, str] | None = None, include_std: bool = False,
                 mode: str | Sequence[str] | None = MODES, ds_id: str | Sequence[str] | None = None,
                 output_name: str = "Dice", per_ds: bool = True):  # fmt: skip
        super().__init__(true_key, pred_key, mode, ds_id, output_name, per_ds)
        self.threshold, self.mask_overlap, self.include_std = threshold, mask_overlap, include_std
        self.excluded = {exclude_channels} if isinstance(exclude_channels, int) else set(exclude_channels or ())
        self.channels = dict(channel_mapping or {})

    def gather(self, true: np.ndarray, pred: np.ndarray) -> np.ndarray:
        """The overlap of every image and channel (B, C); NaN where both are empty."""
        for name, array in ((self.true_key, true), (self.pred_key, pred)):
            if array.min() < 0 or array.max() > 1:
                raise UsageError(f"Dice needs masks from 0 to 1, got {name} from {array.min():g} to {array.max():g}.")
        if true.shape != pred.shape:
            raise UsageError(f"Dice needs masks of one shape, got {true.shape} and {pred.shape}.")
        true, pred = true.astype(np.float64), pred.astype(np.float64)
        if not self.mask_overlap:
            pred = np.where(pred >= pred.max(-1, keepdims=True), pred, 0.0)
        if self.threshold is not None:
            pred = (pred > self.threshold).astype(np.float64)
        space = tuple(range(1, true.ndim - 1))
        overlap = 2 * (true * pred).sum(space) / (true.sum(space) + pred.sum(space) + 1e-8)
        return np.where(true.max(space) + pred.max(space) < EMPTY, np.nan, overlap)

    def value(self, gathered: list[np.ndarray]) -> dict[str, float]:
        """The mean of the channels' means, and what else is asked for; NaN where no channel counts."""
        every, name = np.concatenate(gathered), self.outputs[0]
        means, spreads, out = [], [], {}
        for channel in (c for c in range(every.shape[1]) if c not in self.excluded):
            counted = every[:, channel][~np.isnan(every[:, channel])]
            if counted.size == 0:
                continue
            means.append(counted.mean())
            spreads.append(counted.std())
            if self.channels and every.shape[1] > 1:
                part = f"{name}_{self.channels.get(channel, channel)}"
                out |= {part: means[-1]} | ({f"{part}_std": spreads[-1]} if self.include_std else {})
        out[name] = float(np.mean(means)) if means else float("nan")
        if self.include_std:
            out[f"{name}_std"] = float(np.mean(spreads)) if spreads else float("nan")
        return out
