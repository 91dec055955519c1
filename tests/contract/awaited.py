"""``cache`` and ``caches`` as Django's sync tests know them, over the a-methods.

A call of ``get`` awaits ``aget``, and so on, so that tests written for the one prove the other.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from asgiref.sync import async_to_sync
from django.core.cache import caches
from tests.faces import AWAITING, Face


class AwaitedCache:
    """The cache of an alias; what has an a-method runs there, the rest is passed through."""

    loops: ClassVar[set[asyncio.AbstractEventLoop]] = set()
    """Every event loop in which anything was awaited."""

    def __init__(self, alias: str) -> None:
        self.__dict__["alias"] = alias

    def __getattr__(self, name: str) -> Any:
        found = getattr(Face(caches[self.alias], AWAITING), name)
        return self._awaiting(found) if inspect.iscoroutinefunction(found) else found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(caches[self.alias], name, value)

    def __contains__(self, key: Any) -> bool:
        return bool(self.has_key(key))

    def _awaiting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            self.loops.add(asyncio.get_running_loop())
            return await method(*args, **kwargs)

        # It runs in the event loop above this thread if there is one, else in a new one.
        waiting: Callable[..., Any] = async_to_sync(call)
        return waiting


class AwaitedCaches:
    """``caches``, each of them awaited."""

    def __getitem__(self, alias: str) -> AwaitedCache:
        caches[alias]  # An unknown alias is an error at once.
        return AwaitedCache(alias)
