"""Interruptions: exceptions from outside of the running code, told from errors of that code itself.

A time limit can be raised at any point of the running code: by a signal's handler (Celery's
``SoftTimeLimitExceeded``, RQ's ``JobTimeoutException``, the ``TimeoutError`` of ``signal.alarm``), or by another
thread (``PyThreadState_SetAsyncExc``). Most of them derive from Exception.  So code that catches Exception must ask
here before it takes the exception for a result.

A signal's handler leaves its frame in the traceback.  It is recognised by its code, or as the only function that gets
a frame as an argument.  An exception from another thread has no arguments, and comes at an instruction that raises
nothing.
"""

from __future__ import annotations

import dis
import signal
from _queue import Empty  # which the module queue, in Python, only passes on
from _signal import getsignal  # type: ignore[import-not-found]  # ten times faster than its wrapper signal.getsignal
from collections.abc import Set as AbstractSet
from functools import partial
from pickle import PickleError
from types import CodeType, FrameType, TracebackType
from typing import Any

SIGNALS = tuple(map(int, signal.valid_signals()))
RAISE = dis.opmap["RAISE_VARARGS"]

PLAIN = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, ImportError, LookupError, MemoryError),
    *(NameError, NotImplementedError, PickleError, RecursionError, StopAsyncIteration, StopIteration, SyntaxError),
    *(TypeError, ValueError, Empty),
)
"""Exceptions that code written in C may raise without arguments."""


def interruption(error: BaseException | None) -> BaseException | None:
    """Return the interruption that led to *error*: *error* itself or a cause of it; None if there was none."""
    frames: set[FrameType] = set()
    known: set[int] = set()
    while error is not None and id(error) not in known:
        known.add(id(error))
        steps = _steps(error)
        handlers = _handlers() if steps else set()
        if any(_handles_a_signal(step.tb_frame, handlers) for step in steps) or _is_bare(error):
            return error
        frames.update(step.tb_frame for step in steps)
        hidden = error.__cause__ or error.__context__
        # An exception that was being handled before this code began was caught elsewhere, and is over.
        caught = hidden.__traceback__ if hidden is not None else None
        error = hidden if caught is not None and caught.tb_frame in frames else None
    return None


def let_pass(error: BaseException) -> None:
    """Raise the exception that interrupted the code which raised *error*, if there was an interruption."""
    interrupt = interruption(error)
    if interrupt is not None:
        try:
            raise interrupt
        finally:
            del error, interrupt  # they would keep this frame in a cycle, with all objects of the traceback


def is_stated(error: BaseException) -> bool:
    """Whether *error* was raised by a ``raise`` statement."""
    steps = _steps(error)
    if not steps:
        return False
    code, at = steps[-1].tb_frame.f_code.co_code, steps[-1].tb_lasti
    return 0 <= at < len(code) and code[at] == RAISE


def _is_bare(error: BaseException) -> bool:
    return not (error.args or isinstance(error, PLAIN) or is_stated(error))


def _steps(error: BaseException) -> list[TracebackType]:
    steps = []
    step = error.__traceback__
    while step is not None:
        steps.append(step)
        step = step.tb_next
    return steps


def _handlers() -> set[CodeType]:
    """Return the code of the functions that handle signals now."""
    found: set[CodeType] = set()
    for number in SIGNALS:
        function: Any = getsignal(number)
        while isinstance(function, partial):
            function = function.func
        if callable(function) and not hasattr(function, "__code__"):  # a method, or a callable object
            function = getattr(function, "__func__", type(function).__call__)
        if hasattr(function, "__code__"):
            found.add(function.__code__)
    return found


def _handles_a_signal(frame: FrameType, handlers: AbstractSet[CodeType]) -> bool:
    code: CodeType = frame.f_code
    if code in handlers:
        return True
    count = code.co_argcount + code.co_kwonlyargcount + 2
    for name in code.co_varnames[:count]:
        value = frame.f_locals.get(name)
        if isinstance(value, FrameType) or (
            type(value) is tuple and any(isinstance(each, FrameType) for each in value)
        ):
            return True
    return False
