"""What must be right in a forked process, whoever forked it.

Python runs hooks in the children that it forks.  A server written in C that forks with the interpreter inside, as
uWSGI does, runs none; then everything looks as in the parent: its sockets, its threads, and locks that a thread
holds which is not here.  So whatever belongs to one process is *renewed* in a child by whoever comes first, Python's
hook or the first look at `OURS`.  Every way to a socket or to a lock begins with that look::

    if not OURS:
        own()

`OURS` is a byte in a page that the kernel hands to children as zeros, so a look takes some 10 ns.  (Linux 4.14,
MADV_WIPEONFORK; it is what random number generators use.)
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
    """`OURS` where the kernel wipes no pages: compares process ids, which takes 200 ns."""

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
    """Return what is true once it is set so, and false again in every child."""
    if sys.platform == "linux" and ctypes is not None:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # An emulator that takes any advice heeds none.
        if takes(page, MADV_WIPEONFORK) and not takes(page, -1):
            return ctypes.c_bool.from_buffer(page)  # whose truth is looked at faster than the page's first byte
    return SameProcess()


def takes(page: mmap.mmap, advice: int) -> bool:
    """Whether the kernel takes *advice* about *page*."""
    try:
        page.madvise(advice)
    except OSError:
        return False
    return True


OURS = _page()
"""Whether this process owns all that it has; false in a child until `own` has been called."""

chance = random.Random()
"""Random numbers that differ between forked processes, and do not disturb those who seed the module's own."""

_renewals: dict[int, Callable[[], object]] = {}
_numbers = count()
_owning: dict[int, Any] = {}
"""The lock of each process that is becoming an owner: of one that has not ended by a fork in the middle of it."""


def in_children(renew: Callable[[], object]) -> None:
    """From now on call *renew*, a function or a method, once in each forked child, before anything else is done there.

    It must begin anew whatever state it finds, and replace locks, never take them.  A method is called as long as
    its object lives.
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
    """Make this process own all that it has, if it does not yet: in a child, begin everything anew."""
    pid = os.getpid()
    # A lock of its own for each process, since the parent's may be held for ever.  A handler that interrupts this
    # and uses a cache does all of it.
    with _owning.setdefault(pid, threading.RLock()):
        for renew in list(_renewals.values()):
            if OURS:
                return
            renew()
        OURS.value = True
        for other in set(_owning) - {pid}:
            _owning.pop(other, None)


def keep(*inherited: Any) -> None:
    """Let *inherited*, which is the parent's, never be collected in this child, not even at its end.

    A transport would touch its loop; and CPython 3.13 crashes over a thread that is not here.
    """
    if not any(inherited):
        return
    if ctypes is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
    else:
        KEPT.append(inherited)


KEPT: list[Any] = []


class Guard:
    """Has a ``lock`` that is free in a child, whatever a thread of the parent's was doing."""

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
