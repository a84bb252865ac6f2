"""What a process that another one started owes it."""

import os
import threading
from multiprocessing import connection, parent_process
from typing import Any


def end_with_parent() -> None:
    """From now on this process, which multiprocessing started, ends as soon as its parent is gone, however it went."""
    threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    parent: Any = parent_process()
    connection.wait([parent.sentinel])
    os._exit(1)
