"""Awaited calls in the Cache panel that django-debug-toolbar has itself, which replaces the blocking methods only.

With a backend whose a-methods call its blocking ones, the panel sees awaited calls too.  So that no site loses them, they
are recorded here, as the panel does it.  (`fleetcache.django.toolbar` has a panel that shows more.)

Only caches that are made while somebody watches are watched.  So it watches while a request's panel records, and the cache
objects of the request are made anew at its begin and its end; all other requests have the usual ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from time import perf_counter
from typing import Any
from weakref import WeakSet

from fleetcache.stats.exchanges import Exchange
from fleetcache.stats.operations import Facts, Finish, Operation
from fleetcache.telemetry.tracing import Tool


def notice() -> None:
    """Record the awaited calls of caches that the panel watches, from its next request on, or from now on if one is running."""
    panel = import_module(PANEL).CachePanel
    if not hasattr(panel, MARK):
        setattr(panel, MARK, True)
        panel.enable_instrumentation = _before(panel.enable_instrumentation, _begin)
        panel.disable_instrumentation = _after(panel.disable_instrumentation, _end)
    if (running := panel.current_instance()) is not None and running not in _recording:
        _begin(running, renew=False)  # a cache is being made for it, in place of none


PANEL = "debug_toolbar.panels.cache"
MARK = "_fleetcache_follows"

_recording: WeakSet[Any] = WeakSet()
"""The panels that record."""


def _before(method: Callable[[Any], Any], act: Callable[[Any], None]) -> Callable[[Any], Any]:
    @wraps(method)
    def enable_instrumentation(self: Any) -> Any:
        act(self)
        return method(self)

    return enable_instrumentation


def _after(method: Callable[[Any], Any], act: Callable[[Any], None]) -> Callable[[Any], Any]:
    @wraps(method)
    def disable_instrumentation(self: Any) -> Any:
        found = method(self)
        act(self)
        return found

    return disable_instrumentation


def _begin(panel: Any, *, renew: bool = True) -> None:
    _recording.add(panel)
    TOOL.watch()
    if renew:
        _renew_caches()


def _end(panel: Any) -> None:
    if panel in _recording:
        _recording.discard(panel)
        if not _recording:
            TOOL.end()
        _renew_caches()


def _renew_caches() -> None:
    """Forget the cache objects of this thread or task, so that new ones are made, watched or not."""
    caches = import_module("django.core.cache").caches
    for alias in caches:
        made = getattr(caches._connections, alias, None)
        if made is not None and hasattr(made, "topology"):  # one of ours
            made.close()
            del caches[alias]


def watch(operation: Operation) -> Finish | None:
    """Begin to record one operation, if a panel has taken its cache over for a request."""
    panel = vars(operation.cache).get("_djdt_panel")
    if not operation.awaited or panel is None or operation.name not in panel.counts:
        return None
    tools = import_module("debug_toolbar.utils")
    trace, template, began = tools.get_stack_trace(skip=4), tools.get_template_info(), perf_counter()

    def finish(result: Any, error: BaseException | None, facts: Facts) -> None:
        if error is None:  # the panel records no call that raises
            panel._store_call_info(
                name=operation.name,
                time_taken=perf_counter() - began,
                return_value=result,
                args=operation.args,
                kwargs=operation.kwargs,
                trace=trace,
                template_info=template,
                backend=f"{_alias(operation.cache)} ({type(operation.cache).__name__})",
            )

    return finish


def _alias(cache: Any) -> str:
    caches = import_module("django.core.cache").caches
    names = (alias for alias in caches if getattr(caches._connections, alias, None) is cache)
    return str(next(names, "cache"))


def _hear(exchange: Exchange) -> None:
    """Do nothing: the panel shows no exchanges."""


TOOL = Tool(_hear, watch)
