"""Worker processes that decode pictures: started clean, deaf to Ctrl-C, and gone when their parent is."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_all_start_methods, get_context, parent_process

from darkroom.errors import DataError
from darkroom.provenance import available_cores


@contextmanager
def decoding_pool(*, most: int) -> Iterator[ProcessPoolExecutor]:
    """A process for each core, at most `most` of them; raises `DataError` where one of them dies."""
    # Not "fork": it copies threads' locks in whatever state they are, and PyTorch may have threads by now.
    context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    workers = max(1, min(available_cores(), most, 60))  # Windows cannot wait for more
    pool = ProcessPoolExecutor(max_workers=workers, mp_context=context, initializer=_follow_parent)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise DataError(
            "a process that decoded pictures died: free some memory, or, if a script of yours called darkroom, "
            'put what it does under `if __name__ == "__main__":`'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent process, and end with it even where it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
