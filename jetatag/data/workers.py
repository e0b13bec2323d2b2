"""Work in threads or processes: results in order, in constant memory."""

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

from jetatag.data.memory import keep_freed_memory


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


def in_processes(function: Callable, items: Iterable, workers: int) -> Iterator[Any]:
    """`map` in so many processes, or in this one for one worker. The processes are those of loky,
    which start anew rather than as forks, which could inherit held locks, and do not run the user's
    script again. Raises `OSError` if one of them is killed."""
    if workers == 1:
        yield from map(function, items)
        return
    from joblib.externals.loky import get_reusable_executor

    pool = get_reusable_executor(workers, initializer=keep_freed_memory)
    try:
        yield from in_order(pool, function, items, ahead=4 * workers)
    except BrokenProcessPool:
        raise OSError(errno.ENOMEM, "a worker was killed, probably for want of memory") from None
