"""Both faces of a cache behind one, so that a test is written once."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Self

BLOCKING, AWAITING = FACES = ("blocking", "awaiting")

TWINS = {"__contains__": "ahas_key", "__enter__": "__aenter__", "__exit__": "__aexit__"}
"""The awaiting face of what is not called by its name; that of any other method is named after it."""


class Face:
    """A cache, pipeline or lock whose operations are awaited, whichever of its faces does the work.

    What has no two faces (``make_key``, ``key_prefix``, …) is passed through.  The object itself
    is ``whole``.
    """

    def __init__(self, whole: Any, face: str) -> None:
        self.whole = whole
        self.face = face

    def __getattr__(self, name: str) -> Any:
        awaiting = TWINS.get(name, f"a{name}")
        if name in {"lock", "pipeline"}:
            return lambda *args, **kwargs: Face(getattr(self.whole, name)(*args, **kwargs), self.face)
        if not callable(getattr(type(self.whole), awaiting, None)):
            return getattr(self.whole, name)
        if self.face == AWAITING:
            return getattr(self.whole, awaiting)
        operation = getattr(self.whole, name)
        return partial(_paged if name in {"iter_keys", "sscan_iter"} else _awaited, operation)

    async def perform(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call the method *name*, and return what it returns, or a list of what it yields."""
        found = getattr(self, name)(*args, **kwargs)
        if inspect.isawaitable(found):
            found = await found
        if inspect.isasyncgen(found):
            return [item async for item in found]
        return list(found) if isinstance(found, Iterator) else found

    async def __aenter__(self) -> Self:
        await self.whole.__aenter__() if self.face == AWAITING else self.whole.__enter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.whole.__aexit__(*exception) if self.face == AWAITING else self.whole.__exit__(*exception)


async def _awaited(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return operation(*args, **kwargs)


async def _paged(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
    for item in operation(*args, **kwargs):
        yield item


async def settled(awaitable: Awaitable[Any]) -> Any:
    """Return what *awaitable* returns, or the exception it raises."""
    try:
        return await awaitable
    except Exception as error:
        return error
