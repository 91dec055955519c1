"""Forked children, and how they end."""

from __future__ import annotations

import ctypes
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
