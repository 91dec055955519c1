"""Copies of exceptions: each caller who waited for a load that failed gets one of his own.

An exception that several threads raise has the traceback and the notes of all of them.  A copy has the same type,
arguments, attributes, notes and causes.  Its class is not called, since an ``__init__`` may take anything.
"""

from __future__ import annotations

from struct import calcsize
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

from fleetcache.interrupts import let_pass

HEAP = 1 << 9
"""The flag of classes that are made at run time, as those of the ``class`` statement are."""

POINTER = calcsize("P")


def copied(error: Exception) -> Exception | None:
    """Return a copy of *error*; None if a part of it could be missing, as what classes written in C keep for themselves."""
    kind = type(error)
    base: Any = next(each for each in kind.__mro__ if not each.__flags__ & HEAP)
    room = POINTER if kind.__weakrefoffset__ > 0 else 0
    if base.__module__ != "builtins" or kind.__basicsize__ - base.__basicsize__ not in {0, room}:
        return None
    try:
        grouped = (error.message, error.exceptions) if isinstance(error, BaseExceptionGroup) else ()
        copy: Exception = base.__new__(kind, *grouped)
        if not grouped:
            _copy_fields(error, copy, base)
        vars(copy).update(vars(error))
        if notes := vars(error).get("__notes__"):
            vars(copy)["__notes__"] = list(notes)
        for name in ("args", "__cause__", "__context__", "__suppress_context__"):
            BaseException.__setattr__(copy, name, BaseException.__getattribute__(error, name))
    except Exception as failure:  # noqa: BLE001 - a class may forbid anything
        let_pass(failure)
        return None
    return copy


def _copy_fields(error: Exception, copy: Exception, base: type) -> None:
    """Copy what the builtin class *base* keeps beside the arguments, such as the number and the file of an OSError."""
    for kind in base.__mro__:
        if kind is BaseException:
            return
        for field in vars(kind).values():
            if isinstance(field, (MemberDescriptorType, GetSetDescriptorType)):
                try:
                    value = field.__get__(error)
                except AttributeError:  # it has none
                    continue
                if value is not None:
                    field.__set__(copy, value)
