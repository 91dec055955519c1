"""Work that waits until the response was sent: ``renew="response"``.

Django sends ``request_finished`` when the server closes the response, which is after its last byte, and also if the response
is an error.  Under WSGI a request begins, runs and ends in one thread.  Under ASGI so do its blocking parts: each
request has a thread of its own for them, in which its signals are received too.  So works wait in a list of the
thread, and no middleware is needed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from asgiref.local import Local
from django.apps import apps
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connections
from django.utils import timezone, translation

from fleetcache.loading import renewing

log = logging.getLogger("fleetcache.loading")

_here: Any = Local(thread_critical=True)
"""Has ``works`` during a request: the works that wait for its end."""


def after_response(work: Callable[[], object]) -> bool:
    """Do *work* when the response to the current request was sent; return False if there is no request.

    It runs in this thread, with the language, the time zone and the context variables of now.  An exception is logged.
    """
    works = getattr(_here, "works", None)
    if works is None:
        return False
    context = copy_context()
    works.append(lambda: context.run(work))
    return True


def carry(work: Callable[[], object]) -> Callable[[], object]:
    """Return *work* as it has to run in another thread: with the language and the time zone of this one."""
    if not apps.ready:
        return work  # a script without django.setup() has neither
    language, zone = translation.get_language(), timezone.get_current_timezone()

    def carried() -> object:
        with translation.override(language), timezone.override(zone):
            return work()

    return carried


def close_connections() -> None:
    """Close the database connections of this thread, which is not one of Django's: nobody else would."""
    if apps.ready:
        connections.close_all()


def _begin(**kwargs: Any) -> None:
    # Works of a request that did not end, since its server failed.
    late = getattr(_here, "works", None)
    _here.works = []
    _do(late or [])


def _finish(**kwargs: Any) -> None:
    works = getattr(_here, "works", None)
    try:
        _do(works or [])  # a work may add others
    finally:
        _here.works = None


def _do(works: list[Callable[[], object]]) -> None:
    while works:
        work = works.pop(0)
        try:
            work()
        except Exception:
            log.exception("work after a response failed")


def take_part() -> None:
    """Hear when requests begin and end, and renew the values of all caches accordingly."""
    request_started.connect(_begin, dispatch_uid="fleetcache.begin")
    # Receivers are called in the order in which they were connected: works may use the database, and then Django closes
    # what it closes at the end of each request.
    request_finished.disconnect(close_old_connections)
    request_finished.connect(_finish, dispatch_uid="fleetcache.finish")
    request_finished.connect(close_old_connections)
    renewing.after_response = after_response
    renewing.carriers.append(carry)
    renewing.after_work.append(close_connections)
