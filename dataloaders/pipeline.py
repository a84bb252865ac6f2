"""Data sets to batches: shuffled, transformed, padded and prefetched, exact from any starting point."""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice, repeat
from typing import Any

import numpy as np

from dataloaders.datasets.summary import DatasetSummary, summarized
from dataloaders.ops.numpy_op import NumpyOp
from dataloaders.prefetch import Items, prefetched
from dataloaders.recipe import SAMPLES, TAKE, Recipe, divided, span
from dataloaders.samples import order_of, passed, read, stacked
from dataloaders.schedule import Schedule
from dataloaders.source import Source, digest
from dataloaders.workers import Key, Place, Processes, Threads, in_order
from runtime.errors import UsageError
from runtime.op import NumpyBatch, Op, as_list

Size = int | Mapping[str, Any] | None


class Pipeline:
    """The data of a run, batch by batch as NumPy dictionaries.

    train_data, eval_data, test_data: a Source, any data set with `len` and `[i] -> dict`, or {ds_id: data set}.
    batch_size: one for all, or {mode: size} or {mode: {ds_id: size}}; a `Batch` op of the list overrides it.
    ops: one or several: NumpyOps, which see one sample before `Batch` and batches after it, and plain batch ops of mode
    "train". num_process: worker processes (spawned) that make batches; 0: none. workers: threads that make training
    batches; more than one pays where an op computes outside Python (exact OT). prefetch: batches produced ahead in a
    thread (0: no thread). repeat_first: train on the first batch for ever. shape, classes: of one sample, checked
    against Sources (None: taken from them); configs state them so that models can refer to them.
    rank, world: in training this process reads every world-th row of each pass, from row `rank` of its order on, in
    batches of batch_size; all ranks get equally many batches, of no common row, and random numbers of their own. Data
    of other modes is whole for every rank.

    A plain batch op is `op(batch, rng) -> batch` with as many rows. With an attribute `span` = k it gets k consecutive
    batches as one, numbers k g to k g + k - 1, and its result is split again. With a method `defaults(batch) -> batch`
    it says which keys batches of the other modes get in its place.
    """

    def __init__(
        self,
        train_data: Any = None,
        eval_data: Any = None,
        test_data: Any = None,
        batch_size: Size = None,
        ops: Any = (),
        num_process: int = 0,
        seed: int = 0,
        shape: tuple[int, ...] | None = None,
        classes: int | None = None,
        prefetch: int = 2,
        repeat_first: bool = False,
        workers: int = 1,
        rank: int = 0,
        world: int = 1,
    ):
        least = {"seed": (seed, 0), "prefetch": (prefetch, 0), "workers": (workers, 1), "num_process": (num_process, 0)}
        for name, (value, bound) in least.items():
            if value < bound:
                raise UsageError(f"dataloaders: {name} must be at least {bound}, got {value}.")
        if not 0 <= rank < world:
            raise UsageError(f"dataloaders: rank must lie in 0..world - 1, got rank={rank} and world={world}.")
        given = {"train": train_data, "eval": eval_data, "test": test_data}
        self.schedules = {mode: Schedule(data, mode) for mode, data in given.items() if data is not None}
        self.sources = {mode: next(iter(schedule.data.values())) for mode, schedule in self.schedules.items()}
        self.seed, self.prefetch, self.repeat_first = seed, prefetch, repeat_first
        self.num_process, self.workers, self.rank, self.world = num_process, workers, rank, world
        self._sizes, self._pool, self.ops = batch_size, None, []
        self._check_shapes(shape, classes)
        self.add_ops(ops)

    def _check_shapes(self, shape: Sequence[int] | None, classes: int | None) -> None:
        first = next((s for s in self.sources.values() if isinstance(s, Source)), None)
        self.shape = getattr(first, "shape", ()) if shape is None else tuple(shape)
        self.classes = getattr(first, "classes", 0) if classes is None else classes
        for mode, source in self.sources.items():
            if not isinstance(source, Source):
                continue
            if source.shape != self.shape:
                raise UsageError(f"dataloaders.shape is {self.shape}, but {mode} samples have shape {source.shape}.")
            if source.classes != self.classes:
                raise UsageError(f"dataloaders.classes is {self.classes}, but {mode} data has {source.classes}.")

    def add_ops(self, ops: Any) -> None:
        """Appends ops, plain ones of mode "train"; iterators made before are not changed."""
        ops = as_list(ops)
        for op in ops:
            if isinstance(op, str | int | float | dict | Op) and not isinstance(op, NumpyOp):
                got = type(op).__name__ if isinstance(op, dict | Op) else repr(op)
                hint = " (a TensorOp belongs to a Network)" if isinstance(op, Op) else ""
                raise UsageError(f"ops must be NumpyOps, Batch or callables of a batch, got {got}{hint}.")
            if span(op) < 1:
                raise UsageError(f"{type(op).__name__}.span must be at least 1, got {span(op)}.")
        self.ops = [*self.ops, *ops]
        self.close()
        self.recipes: dict[Key, Recipe] = {}
        for mode, schedule in self.schedules.items():
            for index, (ds_id, data) in enumerate(schedule.data.items()):
                self.recipes[mode, ds_id] = self._recipe(mode, ds_id, data, index)
            schedule.arrange([self.recipes[mode, ds_id].steps for ds_id in schedule.data])

    def _recipe(self, mode: str, ds_id: str, data: Any, index: int) -> Recipe:
        before, batch, after, left = divided(self.ops, mode, ds_id)
        whole = getattr(data, "whole_batch", None)  # a BatchDataset says itself
        size = batch.batch_size or whole or self._size(mode, ds_id, data)
        if whole and size != whole:
            raise UsageError(
                f"this {type(data).__name__} makes batches of {whole}; Batch asks for {size}: leave it out."
            )
        if mode == "train" and size > len(data) // self.world:
            each = f" on each of {self.world} ranks" if self.world > 1 else ""
            raise UsageError(f"batch_size={size}{each} exceeds the {len(data)} training samples; lower batch_size.")
        rank, world = (self.rank, self.world) if mode == "train" else (0, 1)
        return Recipe(data, mode, ds_id, index, size, self.seed, rank, world, before, after, left, batch)

    def _size(self, mode: str, ds_id: str, data: Any) -> int:
        size = self._sizes
        for name in (mode, ds_id):
            size = size.get(name) if isinstance(size, Mapping) else size
        if not isinstance(size, int) or size < 1:
            raise UsageError(f"dataloaders: batch_size must be at least 1, got {size} in mode {mode}.")
        return size

    @property
    def batch_size(self) -> int:
        """The size of the first mode's batches."""
        return next(iter(self.recipes.values())).size

    @property
    def steps_per_epoch(self) -> int:
        """Whole training batches in one pass, of each rank; the short last one is dropped."""
        return self._schedule("train").steps

    def get_modes(self) -> set[str]:
        """The modes that have data."""
        return set(self.schedules)

    def get_ds_ids(self, mode: str) -> list[str]:
        """The names of a mode's data sets, "" for one without a name."""
        return list(self.schedules[mode].data) if mode in self.schedules else []

    def get_steps(self, mode: str, ds_id: str = "") -> int:
        """Batches in one pass over a mode's data set."""
        return self.recipes[mode, ds_id].steps

    def ds_id_at(self, mode: str, number: int) -> str:
        """The data set that batch `number` of `batches(mode)` comes from."""
        repeated = mode == "train" and self.repeat_first
        return self._schedule(mode).place(0 if repeated else number)[0]

    def ops_of(self, mode: str, ds_id: str = "") -> tuple[list[Any], list[Any]]:
        """The ops of a mode and data set in their order: those of samples, those of batches."""
        before, _, after, _ = divided(self.ops, mode, ds_id)
        return before, [op for _, op in after]

    def source(self, mode: str) -> Any:
        """The (first) data set of a mode; UsageError where there is none."""
        self._schedule(mode)
        return self.sources[mode]

    def _schedule(self, mode: str) -> Schedule:
        if mode not in self.schedules:
            raise UsageError(f"there is no data for mode {mode!r}; this pipeline has {', '.join(self.schedules)}.")
        return self.schedules[mode]

    def batches(self, mode: str, start: int = 0, ds_id: str | None = None) -> Items:
        """Batches from number `start` on; Sources give "x" (batch_size, *shape) float32.

        train: endless, and batch i depends on (seed, i) alone, for any num_process and workers: every epoch is a new
        permutation without its short last batch. eval, test: one pass in order; what is missing of the last batch is
        filled up with its first row, and "mask" (batch_size,) float32 is 0 there.
        ds_id: batches of that data set only, by its own numbers; None: of all, in the order of an epoch.
        """
        return prefetched(self._batches(mode, self._places(mode, start, ds_id)), self.prefetch)

    def _places(self, mode: str, start: int, ds_id: str | None) -> Iterator[Place]:
        schedule = self._schedule(mode)
        if ds_id is not None and ds_id not in schedule.data:
            raise UsageError(f"mode {mode} has no data set {ds_id!r}; it has {', '.join(map(repr, schedule.data))}.")
        if ds_id is None:
            numbers = count(start) if mode == "train" else range(start, schedule.steps)
            return ((((mode, own), number)) for own, number in map(schedule.place, numbers))
        numbers = count(start) if mode == "train" else range(start, self.recipes[mode, ds_id].steps)
        return (((mode, ds_id), number) for number in numbers)

    def _batches(self, mode: str, places: Iterator[Place]) -> Items:
        recipes, train = self.recipes, mode == "train"
        spans = {key: recipe.span for key, recipe in recipes.items()}
        if train and self.repeat_first:
            key, _ = next(places)
            yield from repeat(recipes[key].chain()(0))
        elif self.num_process:
            yield from in_order(self._processes(), spans, places)
        elif train and self.workers > 1:
            pool = Threads(self.workers, recipes)
            try:
                yield from in_order(pool, spans, places)
            finally:
                pool.close()
        else:
            chains = {key: recipe.chain() for key, recipe in recipes.items() if key[0] == mode}
            for key, number in places:
                yield chains[key](number)

    def _processes(self) -> Processes:
        if self._pool is None or not self._pool.close.alive:
            self._pool = Processes(self.num_process, self.recipes)
        return self._pool

    def close(self) -> None:
        """Ends the worker processes; the next `batches` starts them again."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None

    def first(self, mode: str, ds_id: str = "") -> NumpyBatch:
        """The first batch of a mode's data set, made here and now, without a thread or a process."""
        return self.recipes[mode, ds_id].chain()(0)

    def transform(self, data: Mapping[str, Any], mode: str = "infer", ds_id: str = "") -> NumpyBatch:
        """One sample through the NumpyOps of a mode, as a batch of 1; UsageError where one removes it."""
        before, batch, after, _ = divided(self.ops, mode, ds_id)
        recipe = Recipe(None, mode, ds_id, 0, 1, self.seed, sample_ops=before, batch=batch)
        sample = dict(data)
        if passed(before, sample, recipe.state(recipe.generator(SAMPLES, TAKE[mode]), 0)) is not None:
            raise UsageError(f"the sample was removed by an op of mode {mode}, so there is nothing to return.")
        whole = stacked([sample], batch.pad_value)
        for number, op in after:
            whole = recipe.changed(whole, number, op, 0)
        return whole

    def get_results(self, mode: str = "train", num_steps: int = 1, ds_id: str | None = None) -> Any:
        """The first batch of a mode, or a list of the first `num_steps`."""
        iterator = self.batches(mode, 0, ds_id)
        found = list(islice(iterator, num_steps))
        iterator.close()
        return found[0] if num_steps == 1 else found

    def summary(self, mode: str) -> dict[str, DatasetSummary]:
        """What is in each data set of a mode, by ds_id, before any op."""
        return {ds_id: summarized(data) for ds_id, data in self._schedule(mode).data.items()}

    def noise(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` points of the source distribution at t=0, (count, *shape) float32."""
        return self.sources["train"].noise(count, rng)

    def draw(self, mode: str, count: int, rng: np.random.Generator) -> NumpyBatch:
        """`count` random rows of a mode without replacement, before any op; UsageError where there are fewer."""
        source = self.source(mode)
        if count > len(source):
            raise UsageError(f"{count} samples asked of the {mode} data, which has {len(source)}.")
        if isinstance(source, Source):
            return source.take(rng.choice(len(source), count, replace=False), rng)
        return stacked([read(source, row, rng) for row in order_of(source, rng)[:count]])

    def fingerprint(self, mode: str | None = None) -> str:
        """A short hash of one mode's data, or of all modes' data; batch size, seed and ops do not enter."""
        modes = self.schedules if mode is None else {mode: self._schedule(mode)}
        return digest(*((name, schedule.fingerprint()) for name, schedule in modes.items()))

    def benchmark(self, mode: str = "train", num_steps: int = 100) -> float:
        """Batches a second over `num_steps` batches (or one pass, if that is shorter), first one not timed."""
        iterator = self.batches(mode)
        next(iterator)
        began = time.perf_counter()
        made = sum(1 for _ in islice(iterator, num_steps))
        elapsed = time.perf_counter() - began
        iterator.close()
        return made / elapsed
