"""Computes items ahead of their use, in order, in processes or threads."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from concurrent import futures
from typing import Any, TypeVar

from experiments.jobs import machine
from experiments.jobs.errors import UsageError

try:
    import resource
except ImportError:
    resource = None  # type: ignore[assignment]

# Open files of a process besides those of the data set.
_OTHER_FILES = 256

_T = TypeVar("_T")


def allow_open_files(count: int) -> None:
    """Raises the limit of open files of this process and its children, if possible."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def ahead(
    make: Callable[[int], _T], first: int, stop: int, workers: int
) -> Generator[_T, None, None]:
    """Yields `make(first)`, `make(first + 1)`, ..., computed ahead.

    All processes have ended once the generator is closed, is exhausted or has raised,
    and once this process has ended in any way.

    Args:
      make: a function that can be pickled; its errors are raised here.
      first: its first argument.
      stop: the end of its arguments, exclusive.
      workers: number of processes; 0 is threads of this one.
    """
    # Imported here, as it takes a second.
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads its flags
    if workers == 0:
        cores = machine.available_cores()
        options = grain.ReadOptions(num_threads=cores, prefetch_buffer_size=2 * cores)
        items = grain.MapDataset.range(first, stop).map(make)
        with contextlib.closing(iter(items.to_iter_dataset(options))) as iterator:
            yield from iterator
        return
    # One pipeline for each process, with every `step`-th argument: the processes of one
    # pipeline would be stopped one after the other.
    step = min(workers, stop - first)
    unbuffered = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    one = grain.MultiprocessingOptions(num_workers=1)
    iterators = [
        iter(
            grain.MapDataset.range(first + i, stop, step)
            .map(make)
            .to_iter_dataset(unbuffered)
            .mp_prefetch(one, worker_init_fn=_begin_worker)
        )
        for i in range(step)
    ]
    with _all_closed(iterators):
        for iterator in iterators:
            # Creates the prefetcher that `start_prefetch` starts and `close` closes.
            iterator.get_state()
        with _interrupts_blocked():
            for iterator in iterators:
                iterator.start_prefetch()
        for iterator in itertools.cycle(iterators):
            try:
                made = next(iterator)
            except StopIteration:
                return
            except RuntimeError as error:  # raised by grain, as for a killed process
                raise UsageError(
                    f"a process that decodes images has ended ({error}). If it was "
                    "killed for its memory, or because /dev/shm is full, give fewer "
                    "--workers."
                ) from error
            yield made


@contextlib.contextmanager
def _all_closed(iterators: list[Any]) -> Iterator[None]:
    """Closes the iterators at the end, concurrently, as each waits for its process."""
    try:
        yield
    finally:
        with futures.ThreadPoolExecutor(len(iterators)) as pool:
            for closed in [pool.submit(iterator.close) for iterator in iterators]:
                closed.result()


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Keeps Ctrl-C from started processes: this one receives it and ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(index: int, workers: int) -> None:
    """Makes a process end with its parent, and ignore odd metadata of pictures."""
    del index, workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Pillow reads the EXIF data, which is not used.
    warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # Other threads still wait for the parent.
        os._exit(1)
