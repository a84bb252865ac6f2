"""The evaluation step: a compiled forward pass with the weights to judge as an input."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import mlx.core as mx

from runtime.op import Batch, Context
from runtime.slots import restored_on_error, snapshot, write
from runtime.streams import divided
from training.network import Network
from training.rows import ROWS, Lookup
from training.tracing import Traces


class ForwardStep:
    """Runs a network in one mode ("eval", "test", "infer") with given model arrays, for instance an EMA.

    arrays: by path, as `snapshot(network.models)` names them. The models themselves and the ops' states stay as they
    are.
    """

    def __init__(self, network: Network, mode: str, compile: bool = True):
        self.network, self.mode, self.compile = network, mode, compile
        self.op_states = [op.state for op in network.ops]
        self.lookup = Lookup(network)
        self._compiled: dict[tuple, Callable] = {}
        self.traces = Traces(f"step of mode {mode}", self.op_states)

    def __call__(self, arrays: Batch, batch: Batch, key: mx.array, fetch: Iterable[str], ds_id: str = "") -> Batch:
        """The keys of `fetch` that the forward pass gives."""
        signature = (tuple(sorted(set(fetch))), ds_id, self.network.scheduled())
        known = self._compiled.get(signature)
        batch = batch | {name: rows for name, rows in self.lookup.read(batch, {}).items() if name == ROWS}
        run = partial(self._run, wanted=signature[0], ds_id=ds_id)
        compiled = known or (self._compile(run, signature) if self.compile else run)
        with nullcontext() if known else restored_on_error([self.network.models, self.op_states]):
            out = compiled(arrays, batch, key)
        self._compiled[signature] = compiled
        return out

    def _compile(self, run: Callable, signature: tuple) -> Callable:
        return mx.compile(self.traces.counted(run, signature, ("weights", "batch", "key")), inputs=self.op_states)

    def _run(self, arrays: Batch, batch: Batch, key: mx.array, wanted: tuple[str, ...], ds_id: str) -> Batch:
        states = [self.network.models, self.op_states]
        held = snapshot(states)
        write(self.network.models, arrays)
        zero = mx.array(0, mx.int32)
        ops = [*self.network.before, *self.network.after]
        out = self.network.forward(batch, Context(self.mode, key, zero, zero, wrap=divided, ds_id=ds_id), ops=ops)
        write(states, held)
        return {name: out[name] for name in wanted if name in out}


def judged_arrays(network: Network, decay: float | None = None) -> Batch:
    """All model arrays with every leaf that has an EMA replaced by it (the first decay, or the one given)."""
    arrays = snapshot(network.models)
    for update in network.updates:
        if update.averages.decays:
            averages = update.averages.leaves(decay)
            arrays |= {network.path_of(update.model, path): leaf for path, leaf in averages.items()}
    return {path: arrays[network.first_paths.get(path, path)] for path in arrays}


@contextmanager
def judged(network: Network, decay: float | None = None) -> Iterator[None]:
    """Within: the network's models hold what `judged_arrays` gives and are in evaluation mode."""
    held = snapshot(network.models)
    write(network.models, judged_arrays(network, decay))
    training = [model.training for model in network.models.values()]
    for model in network.models.values():
        model.train(False)
    try:
        yield
    finally:
        write(network.models, held)
        for model, mode in zip(network.models.values(), training, strict=True):
            model.train(mode)
