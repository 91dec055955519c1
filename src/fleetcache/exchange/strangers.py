"""Exceptions from elsewhere, which must reach whom they are meant for.

A signal's handler, ``PyThreadState_SetAsyncExc`` or gevent can raise anything in the midst of our code: a time
limit that is a builtin ``TimeoutError`` is nothing that the server is to be blamed for.
"""

from __future__ import annotations

OURS = frozenset(
    ("fleetcache", "redis", "hiredis", "socket", "ssl", "select", "selectors", "asyncio", "gevent", "eventlet")
)
"""The packages that speak to servers."""


def raised_in(error: BaseException) -> str:
    """Return the package in whose code *error* was raised; what C raises counts as raised by its caller."""
    traceback = error.__traceback__
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return str(traceback.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def is_strange(error: BaseException, *, late: bool, home: str = "") -> bool:
    """Whether *error*, of a kind that sockets and parsers raise, was raised by none of them.

    *late*: a time limit of ours has passed, so that a ``TimeoutError`` was due.  *home*: a package that is one
    of `OURS`, too.
    """
    where = raised_in(error)
    if (where not in OURS and where != home) or not error.args:  # another thread's has no arguments
        return True
    return isinstance(error, TimeoutError) and error.errno is None and not late
