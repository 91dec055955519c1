"""What a view takes from its visitor: it decides for whom a page may be kept.

Django's middleware for sessions adds ``Vary: Cookie`` to a response after the view, and the middleware for CSRF
protection adds a cookie.  A decorator of the view sees neither, so Django's ``cache_page`` gives the page of one visitor
to all.  Here the view gets a request that notes what it was asked for.

Django REST framework wraps requests, and renders responses with what it found in them.  Its classes are known here by
their attributes: nothing of it is imported.
"""

from __future__ import annotations

from copy import copy
from functools import cache, partial
from typing import Any

from django.utils.cache import patch_vary_headers
from django.utils.functional import SimpleLazyObject

CSRF = "CSRF_COOKIE_NEEDS_UPDATE"
"""What Django's ``get_token`` sets in ``request.META``."""

OUTSIDE = {"accessed", "modified"}
"""What may be read of a session without being told anything of its visitor."""


class Watched:
    """A copy of a request, for the view: it notes whether the view used the session, the user, messages or a CSRF token.

    As a copy it can also be used after its original was answered, and by another thread.  `adopt` gives the
    original everything that the view changed.
    """

    def __init__(self, original: Any) -> None:
        self.original = original
        self.request = request = object.__new__(type(original))  # Django's own copy would lose the environment
        vars(request).update(vars(original))
        request.META = {**original.META, CSRF: False}
        self._asked_for_user = False
        self._user: Any = None
        if "user" in vars(original):
            self._user = request.user = SimpleLazyObject(self._give_user)
        if "auser" in vars(original):
            request.auser = self._agive_user
        self._session = getattr(original, "session", None)
        self._accessed = getattr(self._session, "accessed", False)
        self._modified = getattr(self._session, "modified", False)
        if self._session is not None:
            session = copy(self._session)
            if "_session_cache" in vars(session):
                session._session_cache = dict(session._session_cache)
            session.accessed = False
            session.__class__ = noting_reads(session.__class__)
            request.session = session

    def _give_user(self) -> Any:
        self._asked_for_user = True
        return self.original.user

    async def _agive_user(self) -> Any:
        self._asked_for_user = True
        return await self.original.auser()

    @property
    def saw_visitor(self) -> bool:
        """Whether the view read the session or the user, so that its page is for this visitor."""
        accessed = getattr(getattr(self.request, "session", None), "accessed", False)
        began = not self._accessed and getattr(self._session, "accessed", False)
        return bool(self._asked_for_user or accessed or began)

    @property
    def wrote_session(self) -> bool:
        """Whether the view changed the session, which it would not do in place of a page from the cache."""
        return bool(getattr(getattr(self.request, "session", None), "modified", False) and not self._modified)

    @property
    def wrote_token(self) -> bool:
        """Whether the page has a CSRF token, which is only good for this visitor's cookie."""
        return bool(self.request.META.get(CSRF))

    @property
    def showed_messages(self) -> bool:
        """Whether the page shows or leaves messages, which are shown once."""
        messages = getattr(self.request, "_messages", None)
        return bool(messages is not None and (messages.added_new or (messages.used and len(messages) > 0)))

    def complete(self, response: Any) -> None:
        """Give a *response* that is to be rendered what it lacks: nothing, in Django itself."""

    def adopt(self) -> None:
        """Let the original be as the view left the copy, for middleware that goes on with it."""
        state = dict(vars(self.request))
        meta, session = state.pop("META"), state.pop("session", None)
        self.original.META.update(meta, **{CSRF: meta.get(CSRF) or self.original.META.get(CSRF, False)})
        if state.get("user") is self._user:
            state.pop("user", None)
        if state.get("auser") == self._agive_user:
            state.pop("auser")
        vars(self.original).update(state)
        if session is not None and self._session is not None and type(session) is noting_reads(self._session.__class__):
            accessed = session.accessed or self._session.accessed
            vars(self._session).update(vars(session), accessed=accessed)
        elif session is not None:
            self.original.session = session


class WatchedWrapper(Watched):
    """A copy of a request of Django REST framework."""

    def __init__(self, original: Any) -> None:
        self.original = original
        self._inner = Watched(original._request)
        self.request = request = object.__new__(noting(original.__class__))
        vars(request).update(vars(original), _request=self._inner.request, _noted=False)
        request.parser_context = {**original.parser_context, "request": request}

    @property
    def saw_visitor(self) -> bool:
        """Whether the view read the session or the user, so that its page is for this visitor."""
        return bool(self.request._noted or self._inner.saw_visitor)

    @property
    def wrote_session(self) -> bool:
        """Whether the view changed the session."""
        return self._inner.wrote_session

    @property
    def wrote_token(self) -> bool:
        """Whether the page has a CSRF token."""
        return self._inner.wrote_token

    @property
    def showed_messages(self) -> bool:
        """Whether the page shows or leaves messages."""
        return self._inner.showed_messages

    def complete(self, response: Any) -> None:
        """Give *response* what its view gives it after the decorator, so that it can be rendered."""
        context = self.request.parser_context
        response.accepted_renderer = self.request.accepted_renderer
        response.accepted_media_type = self.request.accepted_media_type
        response.renderer_context = {name: context.get(name) for name in ("view", "args", "kwargs", "request")}
        if varies := getattr(context.get("view"), "headers", {}).get("Vary"):
            patch_vary_headers(response, [header.strip() for header in varies.split(",")])

    def adopt(self) -> None:
        """Let the original be as the view left the copy."""
        self._inner.adopt()
        state = dict(vars(self.request))
        for own in ("_request", "_noted", "parser_context"):
            state.pop(own)
        vars(self.original).update(state)


@cache
def noting(kind: Any) -> Any:
    """Return the class of requests *kind* with properties that note that the user was asked for."""

    def noted(name: str) -> property:
        inherited = getattr(kind, name)

        def read(self: Any) -> Any:
            self._noted = True
            return inherited.fget(self)

        return property(read, inherited.fset)

    return type(kind.__name__, (kind,), {"user": noted("user"), "auth": noted("auth"), "__module__": kind.__module__})


@cache
def noting_reads(kind: Any) -> Any:
    """Return the class of sessions *kind*, which notes as an access whatever is read: Django leaves out the session's key."""

    def read(self: Any, name: str) -> Any:
        if name not in OUTSIDE and not name.startswith("__"):
            self.accessed = True
        return kind.__getattribute__(self, name)

    names = {"__getattribute__": read, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind,), names)


def watched(request: Any) -> Watched:
    """Return a watched copy of *request*."""
    return WatchedWrapper(request) if hasattr(request, "_request") else Watched(request)


def object_of(view: Any) -> Any:
    """Return the object whose method *view* is, None if it is a function; Django's ``method_decorator`` hides it."""
    while view is not None:
        if (found := getattr(view, "__self__", None)) is not None:
            return found
        view = view.func if isinstance(view, partial) else getattr(view, "__wrapped__", None)
    return None
