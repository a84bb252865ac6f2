"""Sources to batches: shuffled, transformed, padded and prefetched, exact from any starting point."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice, repeat

import numpy as np

from dataloaders.prefetch import prefetched
from dataloaders.source import Source, digest
from runtime.errors import UsageError
from runtime.op import NumpyBatch

BatchOp = Callable[[NumpyBatch, np.random.Generator], NumpyBatch]
Numbered = Callable[[int], NumpyBatch]  # batch number -> batch
Batches = Generator[NumpyBatch, None, None]

# First number after the seed in every generator's key, so that no two uses share random numbers.
SHUFFLE, OPS = 0, 1
TAKE = {"train": 2, "eval": 3, "test": 4}


class Pipeline:
    """The data of a run, batch by batch as NumPy dictionaries.

    train_data, eval_data, test_data: sources. shape, classes: of one sample, checked against the sources (None: taken
    from them); configs state them so that models can refer to them. ops: batch ops of mode "train". prefetch: batches
    produced ahead in a thread (0: no thread). repeat_first: train on the first batch for ever.
    workers: threads that produce training batches; more than one pays where an op computes outside Python (exact OT).
    rank, world: this process reads every world-th row of each pass, from row `rank` of its order on, in batches of
    batch_size; all ranks get equally many batches, of no common row, and random numbers of their own.

    A batch op is `op(batch, rng) -> batch` with as many rows. With an attribute `span` = k it gets k consecutive
    batches as one, numbers k g to k g + k - 1, and its result is split again. With a method `defaults(batch) -> batch`
    it says which keys batches of the other modes get in its place.
    """

    def __init__(
        self,
        train_data: Source,
        eval_data: Source | None = None,
        test_data: Source | None = None,
        batch_size: int = 256,
        seed: int = 0,
        shape: tuple[int, ...] | None = None,
        classes: int | None = None,
        ops: Sequence[BatchOp] = (),
        prefetch: int = 2,
        repeat_first: bool = False,
        workers: int = 1,
        rank: int = 0,
        world: int = 1,
    ):
        least = {"batch_size": (batch_size, 1), "seed": (seed, 0), "prefetch": (prefetch, 0), "workers": (workers, 1)}
        for name, (value, bound) in least.items():
            if value < bound:
                raise UsageError(f"dataloaders: {name} must be at least {bound}, got {value}.")
        if not 0 <= rank < world:
            raise UsageError(f"dataloaders: rank must lie in 0..world - 1, got rank={rank} and world={world}.")
        if batch_size > len(train_data) // world:
            each = f" on each of {world} ranks" if world > 1 else ""
            raise UsageError(
                f"batch_size={batch_size}{each} exceeds the {len(train_data)} training samples; lower batch_size."
            )
        self.sources = {
            mode: source
            for mode, source in (("train", train_data), ("eval", eval_data), ("test", test_data))
            if source is not None
        }
        self.shape = train_data.shape if shape is None else tuple(shape)
        self.classes = train_data.classes if classes is None else classes
        for mode, source in self.sources.items():
            if source.shape != self.shape:
                raise UsageError(f"dataloaders.shape is {self.shape}, but {mode} samples have shape {source.shape}.")
            if source.classes != self.classes:
                raise UsageError(f"dataloaders.classes is {self.classes}, but {mode} data has {source.classes}.")
        self.batch_size, self.seed, self.prefetch, self.repeat_first = batch_size, seed, prefetch, repeat_first
        self.workers, self.rank, self.world = workers, rank, world
        self.ops: list[BatchOp] = []
        self.add_ops(ops)

    @property
    def steps_per_epoch(self) -> int:
        """Whole training batches in one pass, of each rank; the short last one is dropped."""
        return len(self.sources["train"]) // self.world // self.batch_size

    def source(self, mode: str) -> Source:
        """The source of a mode; UsageError where there is none."""
        if mode not in self.sources:
            raise UsageError(f"there is no data for mode {mode!r}; this pipeline has {', '.join(self.sources)}.")
        return self.sources[mode]

    def add_ops(self, ops: Sequence[BatchOp]) -> None:
        """Appends batch ops of mode "train"; iterators made before are not changed."""
        for op in ops:
            if span(op) < 1:
                raise UsageError(f"{type(op).__name__}.span must be at least 1, got {span(op)}.")
        self.ops = [*self.ops, *ops]

    def batches(self, mode: str, start: int = 0) -> Batches:
        """Batches from number `start` on, "x" (batch_size, *shape) float32.

        train: endless, and batch i depends on (seed, i) alone: every epoch is a new permutation without its short
        last batch. eval, test: one pass in order; what is missing of the last batch is filled up with the first row,
        and "mask" (batch_size,) float32 is 0 there.
        """
        source = self.source(mode)
        made = self._training(start) if mode == "train" else self._ordered(source, TAKE[mode], start)
        return prefetched(made, self.prefetch)

    def noise(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` points of the source distribution at t=0, (count, *shape) float32."""
        return self.sources["train"].noise(count, rng)

    def draw(self, mode: str, count: int, rng: np.random.Generator) -> NumpyBatch:
        """`count` random rows of a mode without replacement; UsageError where there are fewer."""
        source = self.source(mode)
        if count > len(source):
            raise UsageError(f"{count} samples asked of the {mode} data, which has {len(source)}.")
        return source.take(rng.choice(len(source), count, replace=False), rng)

    def fingerprint(self, mode: str | None = None) -> str:
        """A short hash of one mode's data, or of all modes' data; batch size, seed and ops do not enter."""
        modes = self.sources if mode is None else {mode: self.source(mode)}
        return digest(*((name, source.fingerprint()) for name, source in modes.items()))

    def benchmark(self, mode: str = "train", batches: int = 100) -> float:
        """Batches a second over `batches` batches (or one pass, if that is shorter), first one not timed."""
        iterator = self.batches(mode)
        next(iterator)
        began = time.perf_counter()
        made = sum(1 for _ in islice(iterator, batches))
        elapsed = time.perf_counter() - began
        iterator.close()
        return made / elapsed

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *key, *([self.rank] if self.rank else [])])

    def _training(self, start: int) -> Batches:
        if self.repeat_first:
            yield from repeat(self._chain()(0))
        if self.workers == 1:
            yield from map(self._chain(), count(start))
        yield from self._in_threads(start)

    def _in_threads(self, start: int) -> Batches:
        """Training batches in order, produced in `workers` threads, each a whole group of batches at a time."""
        width = math.lcm(*map(span, self.ops))
        own = threading.local()  # chains keep state (a permutation, a group): one for each thread

        def group(number: int) -> list[NumpyBatch]:
            if not hasattr(own, "chain"):
                own.chain = self._chain()
            return [own.chain(number * width + k) for k in range(width)]

        first, skipped = divmod(start, width)
        pool = ThreadPoolExecutor(self.workers)
        try:
            waiting = deque(pool.submit(group, number) for number in range(first, first + self.workers + 1))
            for number in count(first + self.workers + 1):
                yield from waiting.popleft().result()[skipped:]
                skipped = 0
                waiting.append(pool.submit(group, number))
        finally:
            pool.shutdown(cancel_futures=True)

    def _chain(self) -> Numbered:
        """Batch number -> finished batch."""
        batch_of = self._raw()
        for number, op in enumerate(self.ops):
            batch_of = self._transformed(batch_of, op, number)
        return batch_of

    def _raw(self) -> Numbered:
        """Batch number -> batch before any op; keeps the permutation of the last epoch asked for."""
        source, size, steps = self.sources["train"], self.batch_size, self.steps_per_epoch
        kept, order = -1, np.empty(0, np.int64)

        def batch_of(index: int) -> NumpyBatch:
            nonlocal kept, order
            epoch, step = divmod(index, steps)
            if epoch != kept:
                whole = np.random.default_rng([self.seed, SHUFFLE, epoch]).permutation(len(source))  # on all ranks
                kept, order = epoch, whole[self.rank :: self.world]
            return source.take(order[step * size : (step + 1) * size], self._generator(TAKE["train"], index))

        return batch_of

    def _transformed(self, before: Numbered, op: BatchOp, number: int) -> Numbered:
        """Batch number -> batch after one op more; keeps the last group of `span` batches."""
        width, size = span(op), self.batch_size
        kept, group = -1, []

        def batch_of(index: int) -> NumpyBatch:
            nonlocal kept, group
            turn, place = divmod(index, width)
            if turn != kept:
                parts = [before(turn * width + k) for k in range(width)]
                joined = parts[0] if width == 1 else {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
                result = op(joined, self._generator(OPS, number, turn))
                kept, group = turn, [{k: v[i * size : (i + 1) * size] for k, v in result.items()} for i in range(width)]
            return group[place]

        return batch_of

    def _ordered(self, source: Source, stream: int, start: int) -> Batches:
        size = self.batch_size
        own = np.arange(self.rank, len(source), self.world)
        longest = -(-len(source) // self.world)
        for index in range(start, -(-longest // size)):
            rows = own[index * size : (index + 1) * size]
            mask = np.zeros(size, np.float32)
            mask[: len(rows)] = 1
            rows = np.concatenate([rows, np.full(size - len(rows), rows[0] if len(rows) else 0)])
            batch = {**source.take(rows, self._generator(stream, index)), "mask": mask}
            for op in self.ops:
                batch |= defaults(op, batch)
            yield batch


def span(op: BatchOp) -> int:
    """How many consecutive batches an op wants as one; 1 unless it says otherwise."""
    return getattr(op, "span", 1)


def defaults(op: BatchOp, batch: NumpyBatch) -> NumpyBatch:
    """The keys that a batch which the op does not change gets for those it would write; none unless it says so."""
    return getattr(op, "defaults", lambda batch: {})(batch)
