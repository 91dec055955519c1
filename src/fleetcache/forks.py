"""Forks: sockets, threads and locks of the parent are replaced in a child, whether Python or C code forked it.

Python runs hooks in the children that it forks.  A server written in C that forks with the interpreter inside, such as
uWSGI, runs none.  Then the child has the parent's sockets, its thread objects, and locks held by threads that do not
exist in the child.  So each part that belongs to one process is *renewed* in a child, by Python's hook or by the first
check of `OURS`, whichever comes first.  Before each use of a socket or a lock, the code checks::

    if not OURS:
        own()

`OURS` is a byte in a memory page that the kernel clears in children, so the check takes some 10 ns.  (Linux 4.14,
MADV_WIPEONFORK; random number generators use the same.)
"""

from __future__ import annotations

import inspect
import mmap
import os
import random
import sys
import threading
import weakref
from collections.abc import Callable
from itertools import count
from types import ModuleType
from typing import Any

ctypes: ModuleType | None
try:
    import ctypes
except ImportError:  # some Pythons are built without it
    ctypes = None

MADV_WIPEONFORK = 18


class SameProcess:
    """`OURS` if the kernel cannot clear pages: compares process ids, which takes 200 ns."""

    def __init__(self) -> None:
        self.pid = 0

    def __bool__(self) -> bool:
        return self.pid == os.getpid()

    @property
    def value(self) -> bool:
        return bool(self)

    @value.setter
    def value(self, ours: bool) -> None:
        self.pid = os.getpid() if ours else 0


def _page() -> Any:
    """Return an object that is true once it is set to true, and false again in every child."""
    if sys.platform == "linux" and ctypes is not None:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # An emulator that accepts any advice follows none.
        if takes(page, MADV_WIPEONFORK) and not takes(page, -1):
            return ctypes.c_bool.from_buffer(page)  # its truth is read faster than the page's first byte
    return SameProcess()


def takes(page: mmap.mmap, advice: int) -> bool:
    """Whether the kernel accepts *advice* about *page*."""
    try:
        page.madvise(advice)
    except OSError:
        return False
    return True


OURS = _page()
"""Whether this process owns its sockets and locks; false in a child until `own` has been called."""

chance = random.Random()
"""Random numbers that differ between forked processes; programs that seed the module's own are not affected."""

_renewals: dict[int, Callable[[], object]] = {}
_numbers = count()
_owning: dict[int, Any] = {}
"""The lock under which a process calls its renewals, by process id; a fork may come in the middle of them."""


def in_children(renew: Callable[[], object]) -> None:
    """Register *renew*, a function or a method, to be called once in each forked child before its part is used.

    It must start anew from any state, and replace locks, never take them.  A method is called as long as its object
    lives.
    """
    number = next(_numbers)
    if not inspect.ismethod(renew):
        _renewals[number] = renew
        return

    def forget(_: Any, pop: Callable[..., object] = _renewals.pop) -> None:
        pop(number, None)

    owner, method = weakref.ref(renew.__self__, forget), renew.__func__
    _renewals[number] = lambda: None if (it := owner()) is None else method(it)


def own() -> None:
    """In a child that has not done so yet, call every renewal: this process then owns its sockets and locks.

    Where each nanosecond counts, look at `OURS` first.
    """
    if OURS:
        return
    pid = os.getpid()
    # Each process has its own lock here, since the parent's may be held for ever.  A signal's handler that interrupts
    # this and uses a cache calls all renewals itself.
    with _owning.setdefault(pid, threading.RLock()):
        for renew in list(_renewals.values()):
            if OURS:
                return
            renew()
        OURS.value = True
        for other in set(_owning) - {pid}:
            _owning.pop(other, None)


def keep(*inherited: Any) -> None:
    """Keep *inherited*, objects of the parent, from being garbage collected in this child, even at its end.

    A transport would touch its loop, and CPython 3.13 crashes on a thread object whose thread does not exist here.
    """
    if not any(inherited):
        return
    if ctypes is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
    else:
        KEPT.append(inherited)


KEPT: list[Any] = []


class Guard:
    """Has a ``lock`` that is free in a child, even if a thread of the parent held it."""

    def __init__(self) -> None:
        self._renew()
        in_children(self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    @property
    def lock(self) -> Any:
        """The lock of this process."""
        if not OURS:
            own()
        return self._lock


def _forked() -> None:
    OURS.value = False
    own()


OURS.value = True
in_children(chance.seed)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
