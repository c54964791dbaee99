"""Several runs at once, each in a process of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

from gen_affect_lib.machine import cores


def default_jobs() -> int:
    """One for each core, eight at most: each may take a gigabyte."""
    return min(8, cores())


def side_by_side(work: Callable, items: Iterable, jobs: int | None = None) -> Iterator:
    """What `work(item, stopped)` returns for every item, as they end.

    stopped: a function that says whether to give up: it does when whoever reads the results goes away or presses Ctrl-C.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(jobs or default_jobs()) as pool:
        try:
            for done in as_completed([pool.submit(work, item, stop.is_set) for item in items]):
                yield done.result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
