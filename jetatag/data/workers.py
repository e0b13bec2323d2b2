"""Work in threads or processes: results in order, in constant memory."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import current_process
from typing import Any

START_S = 2.0
"""Seconds that processes take to start, about."""


def in_order(pool: Executor, function: Callable, items: Iterable, ahead: int) -> Iterator[Any]:
    """`pool.map` with at most `ahead` results waiting, for constant memory."""
    items = iter(items)
    waiting = deque(pool.submit(function, item) for item in islice(items, ahead))
    try:
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(items, 1))
    finally:
        for future in waiting:
            future.cancel()


def in_processes(function: Callable, items: Iterable, workers: int | None = None) -> Iterator[Any]:
    """`map` in `workers` processes (None: one per core that this process may use), started only for
    work that takes long. They are loky's: unlike forks, they inherit no locks, and unlike
    Python's own, they do not run the user's script again. Raises `ChildProcessError` if
    one of them dies."""
    from joblib import cpu_count
    from joblib.externals.loky import get_reusable_executor

    workers = workers or cpu_count()
    alone = workers == 1 or current_process().daemon  # daemons may not have children
    items, end = iter(items), time.monotonic() + (math.inf if alone else START_S)
    for item in items:
        yield function(item)
        if time.monotonic() > end:
            break
    else:
        return
    try:
        yield from in_order(get_reusable_executor(workers), function, items, ahead=4 * workers)
    except BrokenProcessPool:
        reason = "for want of memory, or because a file crashed the decoder"
        raise ChildProcessError(f"a worker process died, {reason}") from None
