"""Work done ahead of time in threads, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, window: int
) -> Generator[Result, None, None]:
    """Apply `function` to each item in threads; give the results in the order of the items.

    Threads, because Pillow and file reading let others run. When the caller stops early (`close`, an
    exception, an interrupt) what has not begun is dropped, and no thread is left behind.

    Args:
        function: What it raises is raised here when its turn has come, and ends the map.
        items: Read in the caller's thread.
        workers: How many items are worked on at a time.
        window: How many items may be taken in before the oldest result is given away; this bounds the memory.
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="layerprobe")
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
