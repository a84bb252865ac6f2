"""What ops share that change every input alone."""

from typing import Any

import numpy as np

from dataloaders.ops.numpy_op import NumpyOp
from dataloaders.samples import column


class EachOp(NumpyOp):
    """Changes each input by itself: a subclass gives `one(value) -> value`."""

    def one(self, value: Any) -> Any:
        """The changed value."""
        raise NotImplementedError

    def forward(self, data: Any, state: Any) -> Any:
        """The changed values."""
        found = [self.one(value) for value in (data if self.in_list else [data])]
        return found if self.out_list else found[0]

    def forward_batch(self, data: Any, state: Any) -> Any:
        """Sample by sample, so that a batch gets what its samples would have got."""
        values = data if self.in_list else [data]
        found = [
            column(name, [self.one(row) for row in value], None)
            for name, value in zip(self.outputs, values, strict=True)
        ]
        return found if self.out_list else found[0]

    def named(self, found: Any) -> Any:
        """The values by name; one of them may itself be a list."""
        return dict(zip(self.outputs, found if self.out_list else [found], strict=True))


class DrawnOp(NumpyOp):
    """Changes every input of a sample by the same draw: a subclass gives `draw` and `changed`."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        """What `changed` gets; shape: of the first input."""
        raise NotImplementedError

    def changed(self, value: Any, drawn: Any) -> np.ndarray:
        """The changed value."""
        raise NotImplementedError

    def forward(self, data: Any, state: Any) -> Any:
        """The changed values."""
        values = data if self.in_list else [data]
        drawn = self.draw(state["rng"], np.shape(values[0]))
        found = [self.changed(value, drawn) for value in values]
        return found if self.out_list else found[0]

    def forward_batch(self, data: Any, state: Any) -> Any:
        """The same, with draws of its own for every sample."""
        return by_sample(self, data, state)


def by_sample(op: NumpyOp, data: Any, state: Any) -> Any:
    """What `forward` makes of the samples of a batch, stacked again; UsageError where their shapes then differ."""
    samples = [list(rows) for rows in zip(*data, strict=True)] if op.in_list else data
    found = [op.forward(sample, state) for sample in samples]
    if not op.out_list:
        return column(op.outputs[0], found, None)
    return [column(name, values, None) for name, values in zip(op.outputs, zip(*found, strict=True), strict=True)]
