"""`cache_page`: a view whose pages are rendered once in the fleet."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction

from fleetcache.django.rules import Rules, Tags
from fleetcache.django.visits import Visit
from fleetcache.marks import Timeout
from fleetcache.policy import Policy
from fleetcache.twin import complete

View = TypeVar("View", bound=Callable[..., Any])


def cache_page(
    timeout: Timeout | Policy = None,
    *,
    cache: str | None = None,
    key_prefix: str | None = None,
    tags: Tags = (),
    headers: bool | None = None,
    vary_on_user: bool = True,
    **options: Any,
) -> Callable[[View], View]:
    """Keep the pages of a view: Django's ``cache_page``, with one rendering in the fleet, tags and soft lives.

    *timeout* is a number of seconds, or a `Policy`, whose fields are *options* too; None means the ``max-age`` of the response,
    else ``CACHE_MIDDLEWARE_SECONDS``.  *tags* are texts, which may name arguments of the view, as ``"article:{pk}"`` and
    ``"user:{request.user.pk}"`` do; or a function of the view's arguments that returns tags.  *cache* is an alias.
    *headers* adds ``Cache-Status`` (RFC 9211) to responses; if it is None, the setting ``FLEETCACHE_CACHE_STATUS`` decides.

    A page whose view reads ``request.user`` or the session gets ``Vary: Cookie``, unless *vary_on_user* is false: then it
    is the same for every visitor.
    """
    rules = Rules(
        timeout=timeout,
        cache=cache,
        key_prefix=key_prefix,
        tags=tags,
        headers=headers,
        vary_on_user=vary_on_user,
        options=options,
    )

    def decorate(view: Any) -> Any:
        if iscoroutinefunction(view):

            @wraps(view)
            async def awaiting(request: Any, /, *args: Any, **kwargs: Any) -> Any:
                return await Visit(rules, True, view, request, args, kwargs).answer()

            return awaiting

        @wraps(view)
        def answer(request: Any, /, *args: Any, **kwargs: Any) -> Any:
            return complete(Visit(rules, False, view, request, args, kwargs).answer())

        return answer

    return decorate
