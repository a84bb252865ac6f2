"""The training step: the one compiled function that every task of this repository runs.

It knows only `step(batch, key) -> data`. Inside: one forward pass, one gradient per distinct loss over the union of its
updates' leaves, every gradient before any weight changes, a guard that leaves everything as it was where a loss or a
gradient is not finite.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any

import mlx.core as mx

from runtime.errors import UsageError
from runtime.op import Batch, Context, active
from runtime.scheduler import ScheduledOp
from runtime.slots import restored_on_error, snapshot, write
from runtime.streams import divided
from runtime.trees import hidden
from runtime.world import ALONE, World
from training.averaging import averaged, widened
from training.flat import PARAMETERS, vectors
from training.guard import accumulated, advance, first_scaler, guarded
from training.network import Mixed, Network, trained_paths
from training.rows import ROWS, Lookup
from training.sharding import Shards
from training.tracing import Traces, eagerly
from training.update import UpdateOp, as_number, global_norm

Run = Callable[..., tuple[Batch, Batch]]  # of a step: what it returns, and new rows of a table
INPUTS = ("batch", "key", "rows", "asked")  # of the compiled function
PRECISIONS = {"fp32": None, "bf16": mx.bfloat16, "fp16": mx.float16}


class TrainStep:
    """A network's training step with all its state.

    state: everything that changes, each array once (models, op state, optimizers, averages, carry, sums, counters).
    accumulate: micro-batches per update; their losses are averaged. precision: "fp32", "bf16" or "fp16" forward over
    float32 weights. flatten: train parameter groups as vectors where they can be (None: on a GPU). world: the processes
    that train together; losses, gradients and what a forward pass makes of statistics are averaged over them first.
    start(batch) must see one batch before the first call (the carry takes its shapes).
    """

    def __init__(self, network: Network, accumulate: int = 1, precision: str = "fp32", compile: bool = True,
                 steps_per_epoch: int = 1, flatten: bool | None = None, world: World = ALONE):  # fmt: skip
        if not network.updates:
            raise UsageError("this network has no UpdateOp: nothing would be trained.")
        if accumulate < 1:
            raise UsageError(f"accumulate must be at least 1, got {accumulate}.")
        if precision not in PRECISIONS:
            raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
        if unseen := next(hidden(network.models), None):
            raise UsageError(f"{unseen} is a tuple or set with arrays or modules, which MLX doesn't see and would not "
                             "train; needed: a list (constants: a name that begins with _).")  # fmt: skip
        self.network, self.accumulate, self.compile, self.world = network, accumulate, compile, world
        self.dtype, self.steps_per_epoch = PRECISIONS[precision], steps_per_epoch
        self.shards = Shards(network.models, world)
        self.norm_of = self.shards.norm if self.shards.prefixes else global_norm
        for op in network.ops:
            if isinstance(op, ScheduledOp | UpdateOp):
                op.steps_per_epoch = steps_per_epoch
            if isinstance(op, UpdateOp):
                op.norm_of = self.norm_of
        flatten = mx.default_device() == mx.Device(mx.gpu) if flatten is None else flatten
        self.vectors = vectors(network) if flatten and accumulate == 1 and not self.shards.prefixes else []
        self.flat: dict[str, Batch] = {str(i): {} for i in range(len(self.vectors))}  # weights, slots, averages
        self._seen: dict[tuple[int, str], list[mx.array]] = {}  # the leaves that the last step made of them
        self.losses: dict[str, list[UpdateOp]] = {}
        for update in network.updates:
            if update.gradients is None:
                self.losses.setdefault(update.loss_name, []).append(update)
        self.given = [update for update in network.updates if update.gradients is not None]
        if accumulate > 1 and any(update.ds_id is not None for update in network.updates):
            raise UsageError(f"an UpdateOp with ds_id can't have accumulate={accumulate}; needed: accumulate=1.")
        self.leaves = {loss: trained_paths(network, updates) for loss, updates in self.losses.items()}
        self.state: dict[str, Any] = {
            "models": dict(network.models),
            "ops": {str(i): op.state for i, op in enumerate(network.ops)},
            "carry": {},
            "step": mx.array(0, mx.int32),
            "skipped": mx.array(0, mx.int32),
            "streak": mx.array(0, mx.int32),
        }
        self.lookup = Lookup.training(network, accumulate)
        if self.lookup.op is not None:
            if world.many:
                raise UsageError(f"a table is trained by one process; got {world.size}: use distributed.processes=1.")
            self.state["table"] = self.lookup.op.table  # mx.compile looks past it
        if accumulate > 1:
            current = snapshot(self.state["models"])
            paths = self.leaves | {update.gradients: trained_paths(network, [update]) for update in self.given}
            sums = {source: {path: mx.zeros_like(current[path]) for path in own} for source, own in paths.items()}
            self.state["sums"] = {"gradients": sums, "finite": mx.array(True)}
        if precision == "fp16":
            self.state["scaler"] = first_scaler()
        self._compiled: dict[tuple, Callable] = {}
        self.traces = Traces("training step", self.state)

    def start(self, batch: Batch) -> None:
        """Makes the carry, shaped after a batch."""
        carry = self.network.initial_carry(batch)
        if set(carry) != set(self.network.carry):
            raise UsageError(f"the carry declared is {sorted(self.network.carry)}, initial_carry gave {sorted(carry)}.")
        self.state["carry"].update(carry)
        mx.eval(self.state)

    def __call__(self, batch: Batch, key: mx.array, fetch: Iterable[str] = (), last: bool = True,
                 phases: tuple[Hashable, ...] | None = None, ds_id: str = "",
                 asked: int | None = None) -> Batch:  # fmt: skip
        """One micro-batch; on the `last` of a window the weights move.

        Returns losses, what updates report, and those keys of `fetch` that there are.

        phases: the network's, of this step; ds_id: the data set of the batch, "" without a name. For each pair of them
        the step is compiled once. An update of another ds_id rests: no gradient, no change of its state.
        asked: this process's wishes in 8 bits; "asked" comes back with those that any has. Given by all or by none.
        """
        if phases is None and any(update.phased for update in self.network.updates):
            phases = self.network.phases(int(self.state["step"].item()))
        signature = (tuple(sorted(set(fetch))), last, phases, ds_id)
        self._join()
        known = self._compiled.get(signature)
        compiled = known or self._make(signature)
        read = self.lookup.read(batch, self.state["carry"])
        with nullcontext() if known else restored_on_error(self.state):
            out, rows = compiled(batch, key, read, {} if asked is None else {"asked": mx.array(asked)})
        self.lookup.write(read, rows)
        self._compiled[signature] = compiled
        self._seen = {(i, key): leaves for i, key, leaves in self._leaves()}
        return out

    def _make(self, signature: tuple) -> Run:
        run, everything = partial(self._run, *signature), [self.state, self.flat]
        if not self.compile:
            return partial(eagerly, run)
        return mx.compile(self.traces.counted(run, signature, INPUTS), inputs=everything, outputs=everything)

    def _leaves(self) -> Iterator[tuple[int, str, list[mx.array]]]:
        """What the state holds for every vector: its number, "parameters" or a slot or average, and the leaves."""
        for i, vector in enumerate(self.vectors):
            for key, places in vector.places().items():
                yield i, key, [container[name] for container, name in places]

    def _join(self) -> None:
        """Makes the vectors, at first and for leaves that somebody else has written since the last step."""
        for i, key, leaves in self._leaves():
            seen = self._seen.get((i, key), [])
            if len(seen) != len(leaves) or any(a is not b for a, b in zip(seen, leaves, strict=True)):
                self.flat[str(i)][key] = self.vectors[i].join(leaves)

    def _run(self, wanted: tuple[str, ...], last: bool, phases, ds_id: str, batch: Batch, key: mx.array,
             read: Batch, told: Batch) -> tuple[Batch, Batch]:  # fmt: skip
        state, old = self.state, snapshot(self.state)
        updates = [update for update in self.network.updates if active(update.ds_id, ds_id)]
        trained = {p: old[f"models.{p}"] for paths in self.leaves.values() for p in paths}
        joined = {path for vector in self.vectors for path in vector.paths}
        weights = self._cast({p: leaf for p, leaf in trained.items() if p not in joined})
        for i, vector in enumerate(self.vectors):
            whole = self.flat[str(i)][PARAMETERS]
            weights |= zip(vector.paths, vector.views(self._cast({"": whole})[""]), strict=True)
        weights |= {name: rows for name, rows in read.items() if name == ROWS}  # float32 in every precision
        epoch = state["step"] // self.steps_per_epoch
        context = Context("train", key, state["step"], epoch, wrap=self._wrap, phases=phases, ds_id=ds_id)
        data = {**batch, **state["carry"]}
        names = [loss for loss, own in self.losses.items() if any(update in updates for update in own)]
        losses, gradients, out, changed = self._gradients(names, data, context, old, weights)
        self._take_given([update for update in self.given if update in updates], out, gradients)
        losses, gradients, changed, told = averaged(self.world, losses, gradients, changed, told, self.shards)
        scale = state["scaler"]["scale"] if "scaler" in state else None
        gradients = widened(gradients, [update.gradients for update in self.given], scale)
        norms = {source: self.norm_of(grads) for source, grads in gradients.items()}
        # a gradient's norm is finite only if all of it is
        finite = mx.stack([mx.isfinite(v) for v in (*losses.values(), *norms.values())] or [mx.array(True)]).all()
        changed |= {f"carry.{name}": out[name] for name in self.network.carry}
        write(state, {path: mx.where(finite, new, old[path]) for path, new in changed.items()})
        if "sums" in state:
            (gradients, window), norms = accumulated(state["sums"], gradients, finite, last, self.accumulate), {}
        else:
            window = finite
        report, rows = {}, {}
        if self.network.after:  # these see the weights from before the updates
            out = self.network.forward(out, context, ops=self.network.after)
        if last:
            at = {update: phases and phases[self.network.ops.index(update)] for update in updates}
            report, rows = self._update(at, gradients, norms, window, read)
        self._count(finite, window, last)
        counters = {name: state[name] for name in ("skipped", "streak")}
        return {**{name: out[name] for name in wanted if name in out}, **losses, **report, **counters, **told}, rows

    def _gradients(self, names: list[str], data: Batch, context: Context, old: Batch, weights: Batch):
        """The named losses, each one's gradient by leaf or vector, the data, what forward changed.

        weights: every trained leaf in the precision of the forward pass. The gradient of a loss is taken around that of
        the next one and the only forward pass is inside all of them. Taken in turn, each would bring its own, of which
        mx.compile merges nothing behind a custom function (two such functions are never one to it).
        """
        scale = self.state["scaler"]["scale"] if "scaler" in self.state else mx.array(1.0)
        losses, gradients, out, changed = ({} for _ in range(4))

        def forward(leaves: Batch) -> None:
            write(self.state["models"], leaves)
            placed = snapshot(self.state)
            rows = {name: leaf for name, leaf in leaves.items() if name == ROWS}
            out.update(self.network.forward(data | rows, context))
            changed.update({path: a for path, a in snapshot(self.state).items() if a is not placed[path]})
            losses.update({loss: as_number(loss, out) for loss in names})

        def differentiate(left: list[str], weights: Batch) -> None:
            if not left:
                return forward(weights)

            def evaluate(leaves: Batch) -> mx.array:
                differentiate(left[1:], weights | leaves)
                return losses[left[0]] * scale

            gradients[left[0]] = mx.grad(evaluate)({path: weights[path] for path in self._trained_by(left[0])})

        differentiate(names, weights)
        write(self.state, old)
        for loss, grads in gradients.items():
            for vector in self.vectors:
                if vector.update in self.losses[loss]:
                    grads[vector.label] = vector.gather([grads.pop(path) for path in vector.paths])
        for grads in [*gradients.values()]:
            if ROWS in grads:  # theirs is neither clipped nor measured with the model's
                gradients[ROWS] = {ROWS: grads.pop(ROWS)}
        return losses, gradients, out, changed

    def _trained_by(self, loss: str) -> list[str]:
        return [*self.leaves[loss], *([ROWS] if self.lookup.update in self.losses[loss] else [])]

    def _take_given(self, given: list[UpdateOp], out: Batch, gradients: dict[str, Batch]) -> None:
        """Adds the gradients that ops computed for these updates."""
        for update in given:
            key = update.gradients
            if key not in out:
                raise UsageError(f"an update needs the gradients {key!r}; the data has {', '.join(sorted(out))}.")
            by_leaf = update.given(out[key]).items()
            gradients[key] = {self.network.path_of(update.model, path): g.astype(mx.float32) for path, g in by_leaf}

    def _cast(self, leaves: Batch) -> Batch:
        if self.dtype is None:
            return leaves
        return {p: w.astype(self.dtype) if mx.issubdtype(w.dtype, mx.floating) else w for p, w in leaves.items()}

    def _wrap(self, model):
        model = model if self.world.many else divided(model)  # processes share the cores among them
        return model if self.dtype is None else Mixed(model, self.dtype)

    def _update(self, updates: dict[UpdateOp, Any], gradients: dict[str, Batch], norms: Batch, window: mx.array,
                read: Batch) -> tuple[Batch, Batch]:  # fmt: skip
        """Applies the updates where `window` is true; all gradients are at hand before the first weight moves.

        updates: with their phases in this step. norms: of gradients, by loss, where they are known.
        """
        held, report = snapshot(self.state), {}
        current = snapshot(self.state["models"])
        moved: Batch = {}  # an update sees what one before it has made of a leaf that both train
        names = [self.network.name_of(update.model) for update in self.network.updates]
        fresh = {str(i): dict(arrays) for i, arrays in self.flat.items()}
        for update, phase in updates.items():
            prefix, path_of = self.network.name_of(update.model), partial(self.network.path_of, update.model)
            own = {i: vector for i, vector in enumerate(self.vectors) if vector.update is update}
            parameters = {vector.name: self.flat[str(i)][PARAMETERS] for i, vector in own.items()}
            joined = {path for vector in own.values() for path in vector.own}
            now = current | moved
            parameters |= {path: now[path_of(path)] for path in update.owner if path not in joined}
            source = update.gradients or update.loss_name
            grads = {path: gradients[source][path_of(path)] for path in parameters}
            norm = norms.get(source) if len(grads) == len(gradients[source]) else None
            with ExitStack() as stack:
                for i, vector in own.items():
                    stack.enter_context(vector.installed(fresh[str(i)]))
                new, said = update.apply(grads, parameters, self.state["step"], norm, phase)
            for i, vector in own.items():
                fresh[str(i)][PARAMETERS] = new.pop(vector.name)
            moved |= {path_of(path): leaf for path, leaf in new.items()}
            tail = f"/{prefix}" if len(names) > 1 else ""
            tail += f"/{source}" if names.count(prefix) > 1 else ""
            report |= {f"{name}{tail}": value for name, value in said.items()}
        rows = self.lookup.moved(gradients, read, self.state["step"])
        write(self.state["models"], moved)
        moved = {path: new for path, new in snapshot(self.state).items() if new is not held[path]}
        write(self.state, guarded(window, moved, held))
        for i, vector in enumerate(self.vectors):
            if vector.update in updates:
                vector.spread(self.flat[str(i)], fresh[str(i)], window)
        return report, {name: mx.where(window, new, read[name]) for name, new in rows.items()}

    def _count(self, finite: mx.array, window: mx.array, last: bool) -> None:
        state = self.state
        if "scaler" in state:
            advance(state["scaler"], finite)
        if last:
            state["step"] = state["step"] + 1
            state["skipped"] = state["skipped"] + (~window).astype(mx.int32)
            state["streak"] = mx.where(window, 0, state["streak"] + 1)
