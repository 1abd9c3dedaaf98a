"""Work on parts of a batch in threads that each compute alone.

Operations on a few images are too short to be shared by threads: beside another busy program each would wait for the slowest,
and be several times slower than on one thread. Shared by parts, the work scales, and its results do not depend on the number of
threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier

import torch
from torch import Tensor


def each(work: Callable[[Tensor], None], parts: Sequence[Tensor]) -> None:
    """Call `work` for every part that is not empty, without gradients, in as many threads as torch computes in."""
    parts = [part for part in parts if len(part)]
    count = min(torch.get_num_threads(), len(parts))
    if count < 2:
        for part in parts:
            work(part)
        return

    def alone(part: Tensor) -> None:
        with torch.no_grad():  # a setting of each thread
            work(part)

    for _ in _threads(torch.get_num_threads()).map(alone, parts):
        pass


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """Return threads whose operations are not shared with further threads."""
    pool = ThreadPoolExecutor(count, "views", initializer=torch.set_num_threads, initargs=(1,))
    started = Barrier(count)
    for _ in pool.map(lambda _: started.wait(), range(count)):
        pass
    torch.set_num_threads(count)  # the threads also set what torch takes for threads to come
    return pool


os.register_at_fork(after_in_child=_threads.cache_clear)
