"""The weights that an evaluation judges, put into the models for a while."""

from contextlib import contextmanager
from typing import Any

from runtime.slots import snapshot, write
from training.forward import judged_arrays


@contextmanager
def judged(network: Any):
    """Within: the network's models hold their averages, where some are kept, and are in evaluation mode."""
    held = snapshot(network.models)
    write(network.models, judged_arrays(network))
    training = [model.training for model in network.models.values()]
    for model in network.models.values():
        model.train(False)
    try:
        yield
    finally:
        write(network.models, held)
        for model, mode in zip(network.models.values(), training, strict=True):
            model.train(mode)
