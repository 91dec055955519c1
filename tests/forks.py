"""Forked children, and how they end."""

from __future__ import annotations

import _thread
import ctypes
import os
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable

TRIES = 20
BEGINS = 1.0
"""Within how many seconds a child forked by C code runs its first lines, unless it waits for the GIL for ever."""

FORKS: dict[str, Callable[[], int]] = {
    "python": os.fork,
    "c": ctypes.PyDLL(None).fork,
    "uwsgi": ctypes.CDLL(None).fork,
}
"""How to fork: by Python, which runs its hooks, or by C code without Python's knowledge; uWSGI releases the GIL before."""


def in_child(work: Callable[[], object], by: str = "python") -> int:
    """Fork, run *work* in the child, and return the child's pid; what went wrong is its exit code.

    A thread that holds the GIL as C code forks, or waits for it, is not in the child, which would wait for the GIL for
    ever.  A thread of an earlier test may do so, however long the fork waits for a quiet moment; then *work* has not
    begun, and another child is forked.
    """
    if by == "python":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        return pid or _end_with(work)
    for _ in range(TRIES):
        _let_threads_finish()
        reading, writing = os.pipe()
        pid = FORKS[by]()
        if not pid:
            return _end_with(lambda: (_begin(writing), os.close(reading), work()))
        os.close(writing)
        begins, _, _ = select.select([reading], [], [], BEGINS)
        os.close(reading)
        if begins:
            return pid
        _kill(pid)
    raise AssertionError(f"of {TRIES} children none began: the threads of this process always want the GIL")


def _begin(writing: int) -> None:
    """In a child, tell the parent that the GIL goes from thread to thread here."""
    for _ in range(4):
        done = _thread.allocate_lock()
        done.acquire()
        _thread.start_new_thread(done.release, ())
        while not done.acquire(blocking=False):
            pass  # until the other thread has waited for the GIL, asked for it, and got it
    os.write(writing, b"begun")
    os.close(writing)


def _end_with(work: Callable[[], object]) -> int:
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _let_threads_finish(most: float = 1.0) -> None:
    """Wait until no other thread wants the GIL, for *most* seconds.

    A thread that wants the GIL gets it while this one sleeps, and this one then wakes up late.
    """
    began = time.monotonic()
    while (asleep := time.monotonic()) - began < most:
        time.sleep(0.001)
        if time.monotonic() - asleep < 0.0015:
            return


def ended_well(pid: int, seconds: float = 10.0) -> bool:
    """Wait for a child; one that hangs is killed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.002)
    _kill(pid)
    return False


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
