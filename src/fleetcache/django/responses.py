"""Whether a response may be kept, how it is kept, and what is said about it to the client."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.http.response import ResponseHeaders
from django.utils.cache import has_vary_header

from fleetcache.django.visitors import Watched

FORBIDDEN = {"private", "no-cache", "no-store"}
"""The directives of ``Cache-Control`` that forbid to keep a response."""


def refusal(response: Any, watched: Watched, life: float | None) -> str:
    """Return why *response* must not be given to anybody else, in a word; "" if it may be."""
    # In the order of Django's UpdateCacheMiddleware, which has the same rules but the last three.
    if response.streaming:
        return "streaming"
    if response.status_code not in (200, 304):
        return "status"
    if response.cookies and has_vary_header(response, "Cookie"):
        return "cookies"
    if FORBIDDEN & directives(response):
        return "cache-control"
    if has_vary_header(response, "*"):
        return "vary"
    if life is not None and life <= 0:
        return "timeout"
    if watched.wrote_session:
        return "session"
    if watched.wrote_token:
        return "csrf-token"
    if watched.showed_messages:
        return "messages"
    return ""


def directives(response: Any) -> set[str]:
    """Return the names of the directives in ``Cache-Control``."""
    return {part.partition("=")[0].strip().lower() for part in response.get("Cache-Control", "").split(",")}


def kept(response: Any) -> HttpResponse:
    """Return a copy of a rendered *response*, without its template, that shares nothing with it that changes."""
    # With a `render` method Django would let the middleware for templates change a page that is rendered already.
    kind = HttpResponse if hasattr(response, "render") else type(response)
    fresh = object.__new__(kind)
    vars(fresh).update(response.__getstate__())  # template responses leave their context out
    fresh.headers = ResponseHeaders(response.headers)
    fresh.cookies = type(response.cookies)()
    for name, cookie in response.cookies.items():
        fresh.cookies[name] = cookie.copy()
    fresh._container = [response.content]
    fresh._resource_closers = []
    vars(fresh).pop("text", None)
    return fresh


def add_status(response: Any, *parts: str) -> None:
    """Say in ``Cache-Status`` (RFC 9211) how this cache answered."""
    said = "; ".join(["fleetcache", *parts])
    before = response.headers.get("Cache-Status")
    response.headers["Cache-Status"] = f"{before}, {said}" if before else said
