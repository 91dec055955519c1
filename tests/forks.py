"""Forked children, and how they end."""

from __future__ import annotations

import ctypes
import gc
import os
import time
import traceback
import warnings
from collections.abc import Callable

FORKS: dict[str, Callable[[], int]] = {
    "python": os.fork,
    "c": ctypes.PyDLL(None).fork,
    "uwsgi": ctypes.CDLL(None).fork,
}
"""How to fork: by Python, which runs its hooks, or by C code without Python's knowledge; uWSGI releases the GIL before."""


def in_child(work: Callable[[], object], by: str = "python") -> int:
    """Fork, run *work* in the child, and return the child's pid; what went wrong is its exit code."""
    if by != "python":
        # Since Python 3.13 the finalizer of a thread object detaches its thread.  In a child of C, a thread of the child may
        # have taken its place: then the child ends anywhere, with a segmentation fault.  So leave no garbage of other tests.
        gc.collect()
        _let_threads_finish()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = FORKS[by]()
    if pid:
        return pid
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

    A thread that holds the GIL as C code forks, or waits for it, is not in the child, which would wait for the GIL for
    ever.  A thread that wants the GIL gets it while this one sleeps, and this one then wakes up late.
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
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return False
