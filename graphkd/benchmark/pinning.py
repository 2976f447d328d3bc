"""A fixed number of threads for every library in the process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PLATFORMS = "JAX_PLATFORMS"


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Give torch, the BLAS of NumPy and SciPy, and XLA no more than so many threads; afterwards as before.

    XLA takes as many threads as its process has cores when it first runs, so this thread and those that it starts are
    kept on that many cores, where the system can do that. JAX, which POT imports where it is installed, is told to stay
    on the CPU, as all others do.

    Args:
        threads: Threads, and cores.

    >>> with pinned(1):
    ...     print(torch.get_num_threads())
    1
    """
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    platforms = os.environ.get(PLATFORMS)
    with threadpool_limits(threads):
        try:
            os.environ[PLATFORMS] = "cpu"
            torch.set_num_threads(threads)
            if cores is not None:
                os.sched_setaffinity(0, sorted(cores)[-threads:])
            yield
        finally:
            torch.set_num_threads(before)
            if cores is not None:
                os.sched_setaffinity(0, cores)
            if platforms is None:
                del os.environ[PLATFORMS]
            else:
                os.environ[PLATFORMS] = platforms
