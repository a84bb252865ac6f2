"""Batches made in parallel, in threads or in processes, and given out in order."""

import pickle
import signal
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from dataloaders.recipe import Recipe
from runtime.errors import UsageError
from runtime.op import NumpyBatch
from runtime.processes import end_with_parent

Key = tuple[str, str]  # mode, ds_id
Recipes = dict[Key, Recipe]
Place = tuple[Key, int]  # whose batch, and its number there


class Groups:
    """Whole groups of `span` batches by number, of every recipe; chains keep state, so they are of one thread each."""

    def __init__(self, recipes: Recipes):
        self.recipes, self.own = recipes, threading.local()

    def __call__(self, key: Key, turn: int) -> list[NumpyBatch]:
        """Batches turn * span to (turn + 1) * span - 1."""
        if not hasattr(self.own, "chains"):
            self.own.chains = {}
        chains = self.own.chains
        if key not in chains:
            chains[key] = self.recipes[key].chain()
        width = self.recipes[key].span
        return [chains[key](turn * width + k) for k in range(width)]


class Threads:
    """A pool of threads; more than one pays where an op computes outside Python."""

    def __init__(self, count: int, recipes: Recipes):
        self.count, self.groups, self.pool = count, Groups(recipes), ThreadPoolExecutor(count)

    def submit(self, key: Key, turn: int) -> Future:
        """A group of batches to come."""
        return self.pool.submit(self.groups, key, turn)

    def close(self) -> None:
        """Ends the threads after the groups in work."""
        self.pool.shutdown(cancel_futures=True)


class Processes:
    """A pool of spawned processes, each with a copy of the data sets and ops.

    They end with `close`, with this object, with the interpreter, and by themselves when their parent is gone.
    UsageError where the recipes can't be pickled.
    """

    def __init__(self, count: int, recipes: Recipes):
        self.count = count
        try:
            payload = pickle.dumps(recipes, protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # whatever an object's __reduce__ raises
            raise UsageError(
                f"num_process={count} sends data sets and ops to other processes, which failed ({error}); define "
                "functions and classes at the top of a module, without lambda, or use num_process=0."
            ) from error
        self.pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=begin, initargs=(payload,))
        self.close = weakref.finalize(self, self.pool.shutdown, wait=True, cancel_futures=True)

    def submit(self, key: Key, turn: int) -> Future:
        """A group of batches to come."""
        return self.pool.submit(make, key, turn)


def in_order(pool: Threads | Processes, spans: dict[Key, int], places: Iterable[Place]) -> Generator[NumpyBatch]:
    """The batches at `places`, made ahead by the pool: as many groups as it has workers, and one."""
    ahead = (pool.count + 1) * max(spans.values(), default=1)
    waiting: deque[tuple[Future, int]] = deque()
    newest: dict[Key, tuple[int, Future]] = {}
    try:
        for key, number in places:
            turn, place = divmod(number, spans[key])
            if key not in newest or newest[key][0] != turn:
                newest[key] = turn, pool.submit(key, turn)
            waiting.append((newest[key][1], place))
            if len(waiting) > ahead:
                future, place = waiting.popleft()
                yield future.result()[place]
        while waiting:
            future, place = waiting.popleft()
            yield future.result()[place]
    except BrokenProcessPool as error:
        pool.close()
        raise UsageError(
            "a worker process ended before its batch was made: it was killed (memory?), or the script starts its run "
            'outside `if __name__ == "__main__":`; num_process=0 needs no processes.'
        ) from error
    finally:
        for future, _ in waiting:
            future.cancel()


_groups: Callable[[Key, int], list[NumpyBatch]] | bytes = b""  # of this worker process


def begin(payload: bytes) -> None:
    """What a worker process does first: it leaves Ctrl-C to its parent, and ends when that is gone."""
    global _groups
    _groups = payload
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def make(key: Key, turn: int) -> list[NumpyBatch]:
    """A group of batches, in a worker process."""
    global _groups
    if isinstance(_groups, bytes):  # unpickled here, so that an exception reaches the consumer
        _groups = Groups(pickle.loads(_groups))
    return _groups(key, turn)
