"""An iterator run ahead in one thread."""

import threading
from collections.abc import Generator
from queue import Empty, Queue
from typing import Any

Items = Generator[Any, None, None]


def prefetched(items: Items, depth: int) -> Items:
    """Yields `items`, produced up to `depth` ahead in one thread; depth 0 produces them in the caller's thread.

    An exception of `items` is raised at the consumer, in its place in the sequence. Closing the returned generator
    ends the thread after the item in work and closes `items`. The items must not hold MLX arrays: streams are
    thread-local.
    """
    if depth == 0:
        yield from items
        return
    queue: Queue = Queue(maxsize=depth)
    stopping = threading.Event()
    thread = threading.Thread(target=_produce, args=(items, queue, stopping), name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error, more = queue.get()
            if error is not None:
                raise error
            if not more:
                return
            yield item
    finally:
        stopping.set()
        # Emptied after the flag is set, so a producer waiting for room wakes, sees the flag and ends. It has at most
        # one item left to put, for which there is room now.
        try:
            while True:
                queue.get_nowait()
        except Empty:
            pass
        if thread is not threading.current_thread():  # the garbage collector may close us from anywhere
            thread.join()


def _produce(items: Items, queue: Queue, stopping: threading.Event) -> None:
    error = None
    try:
        for item in items:
            queue.put((item, None, True))
            if stopping.is_set():
                items.close()
                return
    except BaseException as raised:  # handed to the consumer, whatever it is
        error = raised
    if not stopping.is_set():
        queue.put((None, error, False))
