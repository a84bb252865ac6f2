"""A trace that shows which pixels a model looks at."""

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from runtime.panels import Panel
from traces.trace import Trace
from traces.xai.attribution import integrated, saliency, smooth
from training.data import as_numpy
from training.forward import judged


class Saliency(Trace):
    """Leaves panels of saliency maps of the same images after every evaluation, with the weights that it judged.

    model(x (B, H, W, C)) -> scores (B, C), of which the largest is explained. model_inputs, class_key: batch keys.
    samples: how many images (None: the first batch). smoothing: noisy copies of SmoothGrad's squares, 0 for none;
    integrating: pieces of integrated gradients from a uniformly random baseline, 0 for none.
    """

    def __init__(self, model: nn.Module, model_inputs: str, model_outputs: str = "pred", class_key: str | None = None,
                 label_mapping: Mapping[str, Any] | None = None, outputs: str = "saliency", samples: int | None = None,
                 mode: str | Sequence[str] | None = ("eval", "test"), ds_id: str | Sequence[str] | None = None,
                 smoothing: int = 25, integrating: int = 100):  # fmt: skip
        super().__init__((model_inputs,) if class_key is None else (model_inputs, class_key), outputs, mode, ds_id)
        self.model, self.predicted, self.samples = model, model_outputs, samples
        self.smoothing, self.integrating = smoothing, integrating
        self.names = {value: name for name, value in (label_mapping or {}).items()}
        self.kept: dict[str, list[mx.array]] = {}

    def on_epoch_begin(self, data: Any) -> None:
        """Starts anew."""
        self.kept = {key: [] for key in self.inputs}

    def on_batch_end(self, data: Any) -> None:
        """Keeps images until there are enough."""
        have = self.kept[self.inputs[0]]
        if not have or (self.samples or 0) > sum(map(len, have)):
            for key in self.inputs:
                self.kept[key].append(mx.array(data[key]))

    def on_epoch_end(self, data: Any) -> None:
        """Leaves the panels."""
        if not self.kept.get(self.inputs[0]):
            return
        x, *labels = (mx.concatenate(self.kept[key])[: self.samples] for key in self.inputs)
        keys = mx.random.split(mx.random.key(0), 2)
        with judged(self.estimator.network):
            chosen = self.model(x).argmax(1)
            found = {"gradient": saliency(self.model, x, chosen)}
            if self.smoothing:
                found["smooth"] = smooth(self.model, x, chosen, keys[0], self.smoothing, squared=True)
            if self.integrating:
                baseline = mx.random.uniform(x.min(), x.max(), x.shape, key=keys[1])
                found["integrated"] = integrated(self.model, x, chosen, baseline, self.integrating)
            mx.eval(found, chosen)
        texts = dict(zip([*self.inputs[1:], self.predicted], [*labels, chosen], strict=True))
        panels = [Panel(key, text=self._spelled(as_numpy(value))) for key, value in texts.items()]
        panels.append(Panel(self.inputs[0], images=as_numpy(x)))
        panels += [Panel(name, heat=shown(as_numpy(value))) for name, value in found.items()]
        data.write_without_log(self.outputs[0], panels)

    def _spelled(self, values: np.ndarray) -> list[Any]:
        values = values.argmax(-1) if values.ndim > 1 and values.shape[-1] > 1 else values.reshape(len(values))
        return [self.names.get(value, value) for value in values.tolist()]


def shown(masks: np.ndarray) -> np.ndarray:
    """Masks (B, H, W, C) as maps (B, H, W) in [0, 1]: channels' sizes added, from the least to the 99th percentile."""
    total = np.abs(masks).sum(-1)
    low = total.min((1, 2), keepdims=True)
    return np.clip((total - low) / np.maximum(np.percentile(total, 99, (1, 2), keepdims=True) - low, 1e-12), 0, 1)
