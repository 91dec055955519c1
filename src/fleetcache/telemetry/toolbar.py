"""Awaited calls in the Cache panel that django-debug-toolbar has itself, which replaces the blocking methods only.

With a backend whose a-methods call its blocking ones, the panel sees awaited calls too.  So that no site loses them, they
are recorded here, as the panel does it.  (`fleetcache.django.toolbar` has a panel that shows more.)
"""

from __future__ import annotations

from importlib import import_module
from time import perf_counter
from typing import Any

from fleetcache.stats.exchanges import Exchange
from fleetcache.stats.operations import Facts, Finish, Operation
from fleetcache.telemetry.tracing import Tool


def notice() -> None:
    """Record the awaited calls of caches that the panel watches."""
    TOOL.watch()


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
