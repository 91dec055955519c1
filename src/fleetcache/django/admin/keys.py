"""Keys: found page by page, each with what it holds, its lifetime and its deletion."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponseNotAllowed, HttpResponseRedirect

from fleetcache.django.admin import showing
from fleetcache.django.admin.asking import TROUBLE
from fleetcache.django.admin.erasing import Erasing
from fleetcache.django.admin.site import CHANGE, DELETE, KEYS, UNPICKLE, allowed, commands, hidden, hides, require
from fleetcache.errors import SettingsError
from fleetcache.inspection import keys
from fleetcache.inspection.blame import blamed
from fleetcache.inspection.names import belongs, is_library, library_pattern, parts
from fleetcache.keys import TAG

SHOWS = {
    "": "this version",
    "all": "all versions",
    "tags": "tags",
    "library": "leases and the like",
}
"""What the list can show."""

MOST_ROWS = 100

WORKER = b"fleetcache:worker:"
"""How the names of the entries of workers begin."""

LONGEST_LINK = 4000
"""How many characters the address of an entry's page has at most; many servers refuse longer ones."""

LONGEST_LIFE = 100 * 365 * 86400
"""The longest lifetime that is taken, in seconds."""


def unpickles() -> bool:
    """Whether the project's setting ``FLEETCACHE_ADMIN`` allows to unpickle values."""
    return bool((getattr(settings, "FLEETCACHE_ADMIN", None) or {}).get("UNPICKLE"))


class Keys(Erasing):
    """A page of keys, and a page for each key."""

    slug = "keys"
    title = "Keys"
    template = "admin/fleetcache/keys.html"

    def has_module_permission(self, request: Any) -> bool:
        """Whether the user sees the page in the index."""
        return super().has_module_permission(request) and allowed(request, KEYS)

    def has_view_permission(self, request: Any, obj: Any = None) -> bool:
        """Whether the user may see the page."""
        return self.has_module_permission(request)

    def more(self) -> list[tuple[str, str, Any]]:
        """Return the page of an entry, and those of a deletion by pattern."""
        return [("entry/", "entry", self.entry), *super().more()]

    # --- the list ---------------------------------------------------------------------------------

    def context(self, request: Any, alias: str, cache: Any) -> dict[str, Any]:
        """Return one page of keys."""
        require(request, KEYS)
        asked = {name: request.GET.get(name, "").strip() for name in ("pattern", "show", "kind", "cursor")}
        asked["show"] = asked["show"] if asked["show"] in SHOWS else ""
        asked["kind"] = asked["kind"] if asked["kind"] in keys.KINDS else ""
        found = {**asked, "shows": SHOWS, "kinds": keys.KINDS, "several": len(cache.topology.primaries) > 1}
        try:
            with blamed(cache):
                page = self._page(cache, hidden(request), **asked)
        except (ValueError, SettingsError) as error:
            return {**found, "refused": self.failure(request, error)}
        except TROUBLE as error:
            return {**found, "refused": f"No server answers: {error}"}
        seen = [row for row in page.entries if belongs(cache, row.name) and may_see(request, row.name, row.key)]
        rows = [self._row(request, alias, row) for row in seen]
        unnamed = next((row.unnamed for row in seen if row.unnamed and not hides(request, row.unnamed)), "")
        onward = self.url(cache=alias, **{**asked, "cursor": page.cursor})
        return {
            **found,
            "rows": rows,
            "hides": bool(hidden(request)),
            "onward": onward if page.cursor else "",
            "unnamed": unnamed,
            "away": page.away,
            "restarted": page.restarted,
            "scanned": showing.number(page.scanned),
            "total": showing.number(page.total),
            "erase": self.url("erase", cache=alias, pattern=asked["pattern"], show=asked["show"]),
        }

    def _page(self, cache: Any, without: str, *, pattern: str, show: str, kind: str, cursor: str) -> keys.Page:
        options: dict[str, Any] = {
            "kind": kind or None,
            "cursor": cursor or None,
            "count": MOST_ROWS,
            "without": without,
        }
        if show == "library":
            return keys.page(cache, library_pattern(cache), library=True, **options)
        if show == "tags":
            return keys.page(cache, f"{TAG}{pattern or '*'}", library=True, **options)
        return keys.page(cache, pattern or "*", version=keys.ALL if show == "all" else None, **options)

    def _row(self, request: Any, alias: str, row: keys.Row) -> dict[str, Any]:
        url = self.url("entry", cache=alias, name=row.shown)
        return {
            "key": row.key,
            "url": url if len(url) <= LONGEST_LINK else "",
            "version": row.version,
            "kind": row.kind or "?",
            "ttl": "no end" if row.ttl is None and row.kind else showing.seconds(row.ttl),
            "size": showing.size(row.size),
            "server": row.server,
            "problem": row.problem,
        }

    # --- an entry ---------------------------------------------------------------------------------

    def entry(self, request: Any) -> Any:
        """Return the page of an entry, or the result of an act on it."""
        require(request, KEYS)
        if request.method not in {"GET", "HEAD", "POST"}:
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        asked = request.POST if request.method == "POST" else request.GET
        alias, cache, _ = self._chosen(asked.get("cache"))
        text = asked.get("name", "")
        if cache is None or not text:
            return HttpResponseRedirect(self.url(cache=alias))
        name = keys.meant(text)
        with blamed(cache):
            return self._entry_or_act(request, alias, cache, name)

    def _entry_or_act(self, request: Any, alias: str, cache: Any, name: bytes) -> Any:
        if not (belongs(cache, name) and may_see(request, name, parts(cache, name)[1])):
            raise Http404("this cache has no such key")
        unpickle = False
        if request.method == "POST":
            asked = request.POST.get("act", "")
            act = {"ttl": self._set_ttl, "delete": self._delete, "unpickle": self._unpickle}.get(asked)
            if act is None:
                raise Http404("there is no such act")
            answer = act(request, alias, cache, name)
            unpickle = answer is None
            if answer is not None:
                return answer
        return self._entry(request, alias, cache, name, unpickle=unpickle)

    def _entry(self, request: Any, alias: str, cache: Any, name: bytes, *, unpickle: bool) -> Any:
        try:
            found, refused = keys.describe(cache, name, unpickle=unpickle), ""
        except TROUBLE as error:
            found, refused = None, f"The server does not answer: {error}"
        context = {
            "alias": alias,
            "found": found,
            "refused": refused,
            "name": keys.shown(name),
            "key": parts(cache, name)[1],
            "own": is_library(cache, name),
            "facts": _facts(found) if found is not None and found.exists else [],
            "story": _story(found.about) if found is not None and found.about is not None else [],
            "offers_unpickling": _is_pickled(found) and unpickles() and allowed(request, UNPICKLE) and not unpickle,
            **_life(found),
            "list": self.url(cache=alias),
            "search": commands(alias)("get", keys.shown(name), options=["--name"]),
        }
        return self.render(request, "admin/fleetcache/key.html", context)

    def _unpickle(self, request: Any, alias: str, cache: Any, name: bytes) -> None:
        require(request, UNPICKLE)
        if not unpickles():
            raise PermissionDenied("FLEETCACHE_ADMIN['UNPICKLE'] is not set")
        self.note(request, alias, f"Unpickled {keys.masked_key(parts(cache, name)[1])}.")

    def _set_ttl(self, request: Any, alias: str, cache: Any, name: bytes) -> Any:
        require(request, CHANGE)
        again = HttpResponseRedirect(self.url("entry", cache=alias, name=keys.shown(name)))
        seconds: float | None = None
        if not request.POST.get("ever"):
            text = request.POST.get("seconds", "").strip()
            if not re.fullmatch("[0-9]{1,10}", text) or not 0 < int(text) <= LONGEST_LIFE:
                most = f"A lifetime is a whole number of seconds, from 1 to {LONGEST_LIFE}, which is a hundred years."
                self.tell(request, most, level="error")
                return again
            seconds = int(text)
        if self._changed(request, cache, name, lambda digest: keys.set_ttl(cache, name, seconds, digest=digest)):
            life = "no end" if seconds is None else showing.seconds(seconds)
            self.note(request, alias, f"Set the lifetime of {keys.masked_key(parts(cache, name)[1])}: {life}.")
            self.tell(request, f"From now on it is fresh for: {life}.")
        return again

    def _delete(self, request: Any, alias: str, cache: Any, name: bytes) -> Any:
        require(request, DELETE)
        if not self._changed(request, cache, name, lambda digest: keys.delete(cache, [name], digest=digest)):
            return HttpResponseRedirect(self.url("entry", cache=alias, name=keys.shown(name)))
        self.note(request, alias, f"Deleted {keys.masked_key(parts(cache, name)[1])}.")
        self.tell(request, f"Deleted {parts(cache, name)[1]}.")
        return self.back(alias)

    def _changed(self, request: Any, cache: Any, name: bytes, act: Any) -> bool:
        """Run *act*, with the digest of what the user saw; tell why it was not done, and return whether it was."""
        if is_library(cache, name):
            raise PermissionDenied("the library's own names are only shown")
        try:
            if act(request.POST.get("digest", "not given")):
                return True
            self.tell(request, "There is no such entry any more, or it is stale.", level="warning")
        except keys.EntryChanged:
            self.tell(request, "The entry has changed since you saw it. Nothing was done: look again.", level="warning")
        except TROUBLE as error:
            self.tell(request, f"The server does not answer, or refuses: {error}", level="error")
        return False


def may_see(request: Any, name: bytes, key: str) -> bool:
    """Whether the user may see the entry called *name*, whose key is *key*.

    The key of a session lets its reader take the session over; the entry of a worker holds the keys it uses most.
    """
    return not hides(request, key) and not (hidden(request) and name.startswith(WORKER))


def _is_pickled(found: Any) -> bool:
    return found is not None and found.preview is not None and found.preview.form == "pickle"


def _life(found: keys.Description | None) -> dict[str, Any]:
    """Return what the form of the lifetime shows: the fresh life, which is what it sets, and what becomes of it then."""
    if found is None or not found.exists:
        return {}
    about, fresh = found.about, found.fresh
    ended = about.standing if about is not None and about.standing in {"stale", "given up"} else ""
    return {
        "ended": ended,
        # Not rounded up: whoever sets what is shown must not make it longer.
        "seconds": "" if fresh is None else f"{max(int(fresh), 1)}",
        "then_stale": showing.seconds(about.stale) if about is not None and about.stale else "",
    }


def _facts(found: keys.Description) -> list[tuple[str, str]]:
    """Return what is known of an entry from its server."""
    near = "yes" if found.near else "no"
    several = "bytes" if found.kind == "string" else "members"
    facts = [
        ("Version", found.version),
        ("Type", f"{found.kind} ({found.encoding})" if found.encoding else found.kind),
        ("Kept for", "no end" if found.ttl is None else showing.seconds(found.ttl)),
        ("Size", f"{showing.number(found.length)} {several}"),
        ("Memory", showing.size(found.size)),
        ("Not read for", showing.seconds(found.idle)),
        ("Stored as", " → ".join(found.codec)),
        ("Copy in this process", f"{near}, served {showing.number(found.hits)} times" if found.near else near),
        ("Being loaded", "" if found.loading is None else "yes"),
        ("Server", found.server),
    ]
    return [(name, text) for name, text in facts if text and text != showing.NONE]


def _story(about: keys.About) -> list[tuple[str, str]]:
    """Return what an entry says of itself."""
    made = "" if about.made is None else showing.moment(about.made)
    fresh = "as long as it lives" if about.fresh is None else f"for {showing.seconds(max(about.fresh, 0))}"
    story = [
        ("State", about.standing),
        ("Loaded at", made),
        ("Cost to load", showing.seconds(about.cost) if about.cost else ""),
        ("Fresh", fresh),
        ("Then stale for", showing.seconds(about.stale) if about.stale else ""),
        ("Renewed early, β", showing.number(about.early) if about.early else ""),
        ("Version of its tags", about.scope if about.tags else ""),
    ]
    return [(name, text) for name, text in story if text]
