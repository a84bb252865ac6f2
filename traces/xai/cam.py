"""Class activation maps over images: GradCAM and EigenCAM."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runtime.panels import Panel
from traces.trace import Trace
from training.data import as_numpy


class Maps(Trace):
    """Gathers the first `n_samples` of an epoch (None: all), and leaves panels with heat maps under `outputs`.

    labels, preds: batch keys, (B,) or (B, C), shown as text by `label_mapping` {name: value}.
    """

    def __init__(self, images: str, sources: Sequence[str], n_samples: int | None, labels: str | None,
                 preds: str | None, label_mapping: Mapping[str, Any] | None, outputs: str,
                 mode: str | Sequence[str] | None, ds_id: str | Sequence[str] | None):  # fmt: skip
        self.images, self.sources, self.texts = images, tuple(sources), [k for k in (labels, preds) if k is not None]
        super().__init__((images, *sources, *self.texts), outputs, mode, ds_id)
        self.n_samples, self.names = n_samples, {value: name for name, value in (label_mapping or {}).items()}
        self.kept: dict[str, list[np.ndarray]] = {}

    def on_epoch_begin(self, data: Any) -> None:
        """Starts anew."""
        self.kept = {key: [] for key in self.inputs}

    def on_batch_end(self, data: Any) -> None:
        """Keeps samples until there are enough."""
        if self.n_samples is None or sum(map(len, self.kept[self.images])) < self.n_samples:
            for key in self.inputs:
                self.kept[key].append(as_numpy(data[key]))

    def on_epoch_end(self, data: Any) -> None:
        """Leaves the panels."""
        if not self.kept.get(self.images):
            return
        found = {key: np.concatenate(parts)[: self.n_samples] for key, parts in self.kept.items()}
        images = found[self.images]
        panels = [Panel(key, text=self._spelled(found[key])) for key in self.texts]
        panels.append(Panel(self.images, images=images))
        for title, maps in self.maps(*(found[key] for key in self.sources)).items():
            panels.append(Panel(title, images=images, heat=stretched(resized(maps, *images.shape[1:3]))))
        data.write_without_log(self.outputs[0], panels)

    def _spelled(self, values: np.ndarray) -> list[Any]:
        values = values.argmax(-1) if values.ndim > 1 and values.shape[-1] > 1 else values.reshape(len(values))
        return [self.names.get(value, value) for value in values.tolist()]

    def maps(self, *sources: np.ndarray) -> dict[str, np.ndarray]:
        """Maps (n, h, w), not negative, by title."""
        raise NotImplementedError


class GradCAM(Maps):
    """Where a class comes from: ReLU of activations weighted by their gradients' means (arXiv 1610.02391, eq. 1 and 2).

    images, grads, activations: batch keys (B, H, W, C), (B, h, w, K) and (B, h, w, K); grads are of one class's score.
    Without activations the map is FastEstimator's: ReLU of the gradients' mean over the channels.
    """

    def __init__(self, images: str, grads: str, activations: str | None = None, n_samples: int | None = 5,
                 labels: str | None = None, preds: str | None = None, label_mapping: Mapping[str, Any] | None = None,
                 outputs: str = "gradcam", mode: str | Sequence[str] | None = "!train",
                 ds_id: str | Sequence[str] | None = None):  # fmt: skip
        sources = [grads] if activations is None else [grads, activations]
        super().__init__(images, sources, n_samples, labels, preds, label_mapping, outputs, mode, ds_id)

    def maps(self, *sources: np.ndarray) -> dict[str, np.ndarray]:
        """One map a sample."""
        grads, *activations = sources
        weighted = activations[0] * grads.mean((1, 2), keepdims=True) if activations else grads / grads.shape[-1]
        return {self.outputs[0]: np.maximum(weighted.sum(-1), 0)}


class EigenCAM(Maps):
    """The principal components of a layer's activations, as in FastEstimator (arXiv 2008.00299 takes the first).

    images, activations: batch keys (B, H, W, C), (B, h, w, K). Each sample's activations (h w, K), centred, are
    projected onto right singular vectors; negative parts are cut. A vector's sign is the one of its largest projection.
    n_components: how many, or the share of variance to explain, a float in (0, 1).
    """

    def __init__(self, images: str, activations: str, n_components: int | float = 3, n_samples: int | None = 5,
                 labels: str | None = None, preds: str | None = None, label_mapping: Mapping[str, Any] | None = None,
                 outputs: str = "eigencam", mode: str | Sequence[str] | None = "!train",
                 ds_id: str | Sequence[str] | None = None):  # fmt: skip
        super().__init__(images, [activations], n_samples, labels, preds, label_mapping, outputs, mode, ds_id)
        self.n_components = n_components

    def maps(self, *sources: np.ndarray) -> dict[str, np.ndarray]:
        """A map a component and sample; zero where a sample needs fewer components than another."""
        found = [self._project(one) for one in sources[0].astype(np.float64)]
        empty = np.zeros(sources[0].shape[1:3])
        return {f"Component {i}": np.stack([own[i] if i < len(own) else empty for own in found])
                for i in range(max(map(len, found)))}  # fmt: skip

    def _project(self, activations: np.ndarray) -> np.ndarray:
        flat = activations.reshape(-1, activations.shape[-1])
        flat = flat - flat.mean(0)
        _, values, vectors = np.linalg.svd(flat, full_matrices=False)
        count = self.n_components
        if isinstance(count, float):
            explained = np.cumsum(values**2) / max((values**2).sum(), 1e-30)
            count = 1 + int(np.searchsorted(explained, count))
        projected = flat @ vectors[:count].T
        signs = np.sign(projected[np.abs(projected).argmax(0), np.arange(projected.shape[1])])
        return np.maximum(projected * signs, 0).T.reshape(-1, *activations.shape[:2])


def resized(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Maps (n, h, w) at (n, height, width), linear between pixel centres."""
    for axis, size in ((1, height), (2, width)):
        length = maps.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.floor(at).astype(int)
        shape = [1, 1, 1]
        shape[axis] = size
        part = (at - low).reshape(shape)
        maps = maps.take(low, axis) * (1 - part) + maps.take(np.minimum(low + 1, length - 1), axis) * part
    return maps


def stretched(maps: np.ndarray) -> np.ndarray:
    """Each map (n, h, w) from 0 to 1; a constant one is 0."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / np.maximum(high - low, 1e-12)
