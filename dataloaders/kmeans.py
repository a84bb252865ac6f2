"""Five small Gaussians in the plane, as a fixed data set."""

import numpy as np

from dataloaders.source import ArraySource
from dataloaders.toy2d import mixture

CENTRES = np.array([(1.5, 2.0), (-2.0, 1.0), (-1.5, -2.0), (2.0, -1.5), (0.5, 0.5)])


class KMeans(ArraySource):
    """`size` points (2,) of the uniform mixture of N(centre, std^2 I) over the five centres, drawn once with `seed`.

    labelled: gives the component as "label".
    """

    def __init__(self, size: int = 200_000, seed: int = 69, std: float = 0.1, labelled: bool = False):
        x, component = mixture(CENTRES, std, size, np.random.default_rng(seed))
        super().__init__({"x": x, "label": component} if labelled else {"x": x}, classes=5 if labelled else None)
