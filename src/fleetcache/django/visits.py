"""One request for a page: the page is found, loaded, or made beside the cache.

A page is kept under its URL, language and time zone.  If it varies on headers of the request, a *pointer* stands there
instead: it names the headers, and each page has a name of its own.  A response that must not be kept leaves a *pass* for
some seconds, so that nobody waits for somebody else's response only to get none of it.

What is kept is a list: its kind, the id of the visit that made it, and what belongs to the kind.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from math import ceil, floor, inf
from secrets import token_hex
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpResponse, HttpResponseBase
from django.http.multipartparser import MultiPartParserError
from django.utils.cache import get_cache_key, learn_cache_key, patch_response_headers, patch_vary_headers

from fleetcache.django.backend import cache_named
from fleetcache.django.loads import PageLoad
from fleetcache.django.responses import add_status, directives, kept, refusal
from fleetcache.django.rules import Rules
from fleetcache.django.visitors import object_of, watched
from fleetcache.errors import LoadFailed
from fleetcache.failsafe import TROUBLE
from fleetcache.loading.load import Load, current_load
from fleetcache.marks import MISSING
from fleetcache.twin import complete

PAGE, POINTER, PASSED, AGAIN = "page", "pointer", "pass", "again"
"""The kinds.  AGAIN is never stored: its finder has to look again."""

ANSWERS = (Http404, PermissionDenied, SuspiciousOperation, BadRequest, MultiPartParserError)
"""Exceptions by which a view answers one visitor, as with one that has a status of less than 500; others are failures."""

PASS = 10.0
"""For how many seconds nobody waits for a page that was not kept."""

LONGER = 10
"""How many times longer than a page its pointer is kept."""

ATTEMPTS = 3
"""How often a visit looks for its page while others find that it varies on more headers."""

YEAR = 365 * 24 * 60 * 60
"""What a page that is kept for ever tells its clients, in seconds."""

Kept = Sequence[Any]


class FailedPage(Exception):
    """The view returned a response with a status of 500 or more."""


class Visit:
    """One request for a page."""

    name = ""
    """Where the page is kept, or its pointer."""
    place = ""
    """Where a pass was found."""
    why = "miss"
    """Why the view was called, in the words of RFC 9211."""
    said: PageLoad
    """What the view said of the load of its page."""
    response: Any = None
    """What the view returned, if it was called for this visit, or by it for others."""
    error: BaseException | None = None
    """What the view raised."""
    failed = False
    """Whether that, or what it returned, is a failure."""
    refused = ""
    """Why the response is not kept."""
    has_new_tags = False
    """Whether the view has named tags that were not noted before it was called, so that its page is not stored."""
    life: float | None = None
    """For how many seconds the response is fresh."""

    def __init__(
        self, rules: Rules, awaits: bool, view: Any, request: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self.rules, self.awaits, self.view, self.request, self.args, self.kwargs = (
            rules,
            awaits,
            view,
            request,
            args,
            kwargs,
        )
        self.id = token_hex(8)
        self.varied: list[str] = []

    async def answer(self) -> Any:
        """Return the response."""
        if self.request.method not in ("GET", "HEAD"):
            with self._said().running():
                made = self.view(self.request, *self.args, **self.kwargs)
                return self._told(await made if self.awaits else made, "fwd=method")
        cache = cache_named(self.rules.alias)
        if cache is None:
            return await self._beside("fwd=bypass")
        self.began = time.time()
        self.cache: Any = cache if self.awaits else cache._still
        self.tags_of_url = self.rules.tags_of_url(self.args, self.kwargs)
        tags = self.rules.tags_of(self.request, self.args, self.kwargs)
        self.tags = list(await tags if self.awaits and inspect.isawaitable(tags) else tags)
        try:
            found = await self._find()
        except Exception as error:  # noqa: BLE001 - it is raised again, if it is no page
            return await self._failed(error)
        kind, made_by, *_ = found
        if made_by == self.id:
            return self._own()
        if kind == PAGE:
            return self._replayed(found)
        return await self._beside("fwd=miss", "detail=pass")

    async def _failed(self, error: Exception) -> Any:
        """Return the response if there is no page because of *error*, or raise it."""
        if error is self.error:
            self.watched.adopt()
            if isinstance(error, FailedPage):
                return self._told(self.response, f"fwd={self.why}", "detail=status")
        elif isinstance(error, FailedPage):
            return await self._beside("fwd=miss", "collapsed")  # the response was for another visitor
        elif isinstance(error, LoadFailed):
            later = {"Retry-After": str(ceil(error.retry_in))}
            return self._told(
                HttpResponse("Service Unavailable", status=503, headers=later), "fwd=miss", "detail=retry-after"
            )
        raise error

    # --- the page in the cache --------------------------------------------------------------------

    async def _find(self) -> Kept:
        asked = Asked()
        get_cache_key(self.request, self.rules.prefix, cache=asked)
        place = asked.name.rpartition("cache_header")[2]
        found: Kept | None = None
        if self.request.method == "HEAD":
            self.name = f"fleetcache.page.GET{place}"
            found = await self._look()
        self.name = f"fleetcache.page.{self.request.method}{place}"
        for _ in range(ATTEMPTS):
            if found is not None and found[0] != AGAIN:
                break
            self.place = self.name
            found = await self._load(self.name, self._learn, self.tags_of_url)
            if found[0] == POINTER and found[1] != self.id:
                self.place = self._place_of(found)
                found = await self._load(self.place, partial(self._vary, found), self.tags)
        assert found is not None
        return found

    async def _look(self) -> Kept | None:
        """Return the page that is kept, or None."""
        found: Kept | None = await self.cache.aget(self.name)
        if found is not None and found[0] == POINTER:
            found = await self.cache.aget(self._place_of(found))
        return found if found is not None and found[0] == PAGE else None

    async def _load(self, name: str, work: Callable[[], Coroutine[Any, Any, Kept]], tags: list[str]) -> Kept:
        loader: Callable[[], Any] = work if self.awaits else lambda: complete(work())
        found: Kept = await self.cache.aget_or_set(name, loader, self.rules.policy(self.cache), tags=tags)
        return found

    def _place_of(self, pointer: Kept) -> str:
        """Return where the page for this request is kept, among those of *pointer*."""
        _, first, headers, owner = pointer
        digest = self._digest(headers)
        return f"{self.name}.{first if digest == owner else digest}"

    def _digest(self, headers: Sequence[str]) -> str:
        values = [self.request.META.get(header) for header in headers]
        return blake2b(repr(values).encode(), digest_size=16).hexdigest()

    # --- loaders ----------------------------------------------------------------------------------

    async def _learn(self) -> Kept:
        """Make the page of a URL of which nothing is known, and point to it if it varies."""
        load = current_load()
        self.why = "stale" if load.is_stale else "uri-miss"
        # It is loaded under another name first: only then can a page that varies be stored where it belongs, and be
        # refused if it was invalidated meanwhile.  Nobody else asks for that name before there is a pointer to it.
        first = f"{self.name}.{self.id}"
        made = await self._load(first, partial(self._make_first, old_response_of(load)), self.tags)
        if not self._needs_pointer:
            self._tell(load)
            if made[0] == PASSED:
                await self._let_pass(load, self.name, made, self.tags_of_url)
            load.timeout = self.life
            return made
        if made[0] == PASSED:
            await self._let_pass(load, first, made, self.tags)
        load.skip()
        return await self._point([POINTER, self.id, self.varied, self._digest(self.varied)])

    async def _make_first(self, old: Any) -> Kept:
        made = await self._make(self._said(self.name, old))
        load = current_load()
        if made[0] == PASSED or not self._needs_pointer:
            load.skip()
        else:
            self._tell(load)
        return made

    @property
    def _needs_pointer(self) -> bool:
        """Whether the URL has several pages, or its page has tags that other visitors would not ask for."""
        return bool(self.varied) or self.rules.personal

    async def _vary(self, pointer: Kept) -> Kept:
        """Make the page for the headers of this request."""
        load = current_load()
        self.why = "stale" if load.is_stale else "vary-miss"
        made = await self._make(self._said(load.key, old_response_of(load)))
        self._tell(load)
        headers = pointer[2]
        if not set(self.varied) <= set(headers):
            load.skip()
            await self._point([POINTER, token_hex(8), sorted({*headers, *self.varied}), ""])
            return [AGAIN, self.id]
        if made[0] == PASSED:
            await self._let_pass(load, self._place_of(pointer), made, self.tags)
        return made

    async def _let_pass(self, load: Any, name: str, passed: Kept, tags: list[str]) -> None:
        """Let nobody wait for the page *name* for a while, unless only this client's copy is up to date."""
        load.skip()
        if getattr(self.response, "status_code", None) != 304:
            with suppress(*TROUBLE):
                await self.cache.aset(name, passed, PASS, tags=tags)

    async def _point(self, pointer: Kept) -> Kept:
        life = None if self.life is None else max(self.life, PASS) * LONGER
        with suppress(*TROUBLE):  # the visitor gets what was made, whatever becomes of the server
            await self.cache.aset(self.name, pointer, life, tags=self.tags_of_url)
        return pointer

    # --- the view ---------------------------------------------------------------------------------

    def _tell(self, load: Load) -> None:
        """Tell *load*, which stores the page, what the view has said, and see whether it can be stored."""
        self.said.tell(load)
        for flight in load.flights:
            noted = flight.guards
            self.has_new_tags = noted is not None and any(
                self.cache._tag_name(tag) not in noted for tag in self.said.tags
            )

    def _said(self, name: str = "", old: Any = MISSING) -> PageLoad:
        """Return what the view gets from `current_load`."""
        return PageLoad(name, self.rules.usual, old)

    async def _make(self, said: PageLoad) -> Kept:
        """Call the view, which may say something to *said*; return what is to be kept."""
        try:
            await self._respond(said)
        except Exception as error:
            self.error = error
            if isinstance(error, ANSWERS) or getattr(error, "status_code", 500) < 500:
                return [PASSED, self.id]
            self.failed = True
            raise
        current_load().timeout = self.life
        if getattr(self.response, "status_code", 0) >= 500:
            self.error, self.failed = FailedPage(self.response.status_code), True
            raise self.error
        if self.refused:
            return [PASSED, self.id]
        return [PAGE, self.id, time.time(), self.life, kept(self.response)]

    async def _respond(self, said: PageLoad) -> None:
        """Call the view, and see what follows from its response, and from what it says to *said*."""
        self.response, self.varied, self.refused, self.life, self.said = None, [], "no-response", 0.0, said
        with said.running():
            response = await self._called()
        self.response = response = said.stale if said.kept else response
        if isinstance(response, HttpResponseBase):
            self._judge(response)

    async def _called(self) -> Any:
        """Call the view; return its response, rendered."""
        self.watched = watched(self.request)
        view = object_of(self.view)
        if getattr(view, "request", None) is self.request:
            view.request = self.watched.request  # a class-based view looks there
        response = self.view(self.watched.request, *self.args, **self.kwargs)
        if self.awaits:
            response = await response
        elif inspect.iscoroutine(response):
            response.close()
            raise TypeError(f"cache_page: {self.view!r} returned a coroutine; decorate what as_view() returns instead")
        if callable(render := getattr(response, "render", None)):
            self.watched.complete(response)
            if self.awaits:
                response = await (render() if iscoroutinefunction(render) else sync_to_async(render)())
            else:
                response = render()
        return response

    def _judge(self, response: Any) -> None:
        """Decide whether and how long *response* is kept, and tell its clients."""
        if self.rules.vary_on_user and self.watched.saw_visitor:
            patch_vary_headers(response, ("Cookie",))
        self.life = self.said.life if self.said.has_timeout else self.rules.life(response)
        self.refused = refusal(response, self.watched, self.life)
        if not self.refused and not self.said.skipped:
            patch_response_headers(response, YEAR if self.life is None else int(self.life))
        if not self.refused:
            if self.request.headers.get("Authorization") and "public" not in directives(response):
                patch_vary_headers(response, ("Authorization",))
            if response.status_code == 304:
                self.refused = "status"
        if self.refused != "vary":
            asked = Asked()
            learn_cache_key(self.request, response, 0, self.rules.prefix, cache=asked)
            self.varied = asked.headers

    # --- responses --------------------------------------------------------------------------------

    def _own(self) -> Any:
        """Return what the view returned, or raise what it raised."""
        self.watched.adopt()
        if self.error is not None:
            raise self.error
        why_not = self.refused or ("skipped" if self.said.skipped else "new-tags" if self.has_new_tags else "")
        return self._told(self.response, f"fwd={self.why}", f"detail={why_not}" if why_not else "stored")

    async def _beside(self, *status: str) -> Any:
        """Call the view for this visitor alone."""
        try:
            await self._respond(self._said(self.name))
        finally:
            self.watched.adopt()
        if not self.refused and self.place:
            with suppress(*TROUBLE):
                await self.cache.adelete(self.place)  # the next visitor's page is kept
        return self._told(self.response, *status)

    def _replayed(self, page: Kept) -> Any:
        """Return a response from the cache."""
        _, _, made, life, response = page
        age = max(0, int(time.time() - made))
        fresh = kept(response)
        fresh.headers["Age"] = str(age)
        if made >= self.began:
            return self._told(fresh, "fwd=miss", "collapsed")
        left = inf if life is None else life - (time.time() - made)
        ttl = [] if life is None else [f"ttl={floor(left) if left < 0 else int(life) - age}"]
        return self._told(fresh, "hit", *ttl, *(["detail=renewal-failed"] if self._was_spared(left) else []))

    def _was_spared(self, left: float) -> bool:
        """Whether a page, fresh for *left* seconds, which may be negative, is served because the view failed.

        If it failed for another visitor, the page is too old for anything else: by a second, since clocks differ.
        """
        if self.failed or left >= -1:
            return self.failed
        policy = self.rules.policy(self.cache)
        return left < -policy.stale_while_revalidate - 1 and policy.soft_timeout is None

    def _told(self, response: Any, *status: str) -> Any:
        if self.rules.shows_status and isinstance(response, HttpResponseBase):
            add_status(response, *status)
        return response


def old_response_of(load: Load) -> Any:
    """Return the response that *load* is to replace, MISSING if there is none."""
    page: Kept | None = load.stale
    return page[4] if page is not None and page[0] == PAGE else MISSING


class Asked:
    """Stands in for a cache in Django's functions that make keys: it hears the name, and the headers that a page varies on."""

    def __init__(self) -> None:
        self.name = ""
        self.headers: list[str] = []

    def get(self, name: str) -> None:
        """Hear where Django keeps the headers."""
        self.name = name

    def set(self, name: str, headers: list[str], timeout: Any) -> None:
        """Hear the headers."""
        self.name, self.headers = name, headers
