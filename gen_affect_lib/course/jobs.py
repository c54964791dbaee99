"""Runs several submissions or notebooks at once: one thread for each, which waits for the process that it starts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from gen_affect_lib.machine import cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_jobs() -> int:
    """The default number of jobs: one per core, at most 8, since each may take 1 GB of memory."""
    return min(8, cores())


def run_parallel(
    work: Callable[[Item, Callable[[], bool]], Result], items: Iterable[Item], jobs: int | None = None
) -> Iterator[Result]:
    """Yield `work(item, stopped)` for every item, in the order in which they finish; `jobs` of them run at a time.

    stopped: a function that returns True once `work` should give up: after Ctrl-C, or when the caller stops iterating.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(jobs or default_jobs()) as pool:
        try:
            for done in as_completed([pool.submit(work, item, stop.is_set) for item in items]):
                yield done.result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
