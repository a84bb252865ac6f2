"""What ops share that change every input alone."""

from typing import Any

import numpy as np

from dataloaders.ops.numpy_op import NumpyOp


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
        found = [np.stack([self.one(row) for row in value]) for value in (data if self.in_list else [data])]
        return found if self.out_list else found[0]

    def named(self, found: Any) -> Any:
        """The values by name; one of them may itself be a list."""
        return dict(zip(self.outputs, found if self.out_list else [found], strict=True))
