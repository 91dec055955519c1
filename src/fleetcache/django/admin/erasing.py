"""Deletion by pattern: counted first, then confirmed, then done in steps, each of which is one request.

Where it stands is in the address of the page, signed: so nothing is kept on the server, the page may be loaded again
or left and gone on with tomorrow, and to stop it is to ask for no further step.
"""

from __future__ import annotations

from typing import Any

from django.core import signing
from django.http import Http404, HttpResponseNotAllowed, HttpResponseRedirect

from fleetcache.django.admin import showing
from fleetcache.django.admin.asking import TROUBLE
from fleetcache.django.admin.site import CLEAR, KEYS, Page, hidden, require
from fleetcache.django.backend import SESSIONS
from fleetcache.errors import SettingsError
from fleetcache.inspection import keys
from fleetcache.inspection.blame import SiteFailed, blamed
from fleetcache.inspection.names import parts
from fleetcache.inspection.scanning import BUDGET
from fleetcache.keys import special

SALT = "fleetcache.admin.erasing"

LASTS = 7 * 86400
"""For how many seconds a deletion that was begun can be gone on with."""

SAMPLES, LONGEST_SAMPLE = 10, 100
"""How many names that match are shown, and how many of their letters."""

VERSIONS = {"": "this version", "all": "all versions"}


class Erasing(Page):
    """The views of a deletion by pattern."""

    def more(self) -> list[tuple[str, str, Any]]:
        """Return the page of a deletion by pattern."""
        return [("erase/", "erase", self.erase)]

    def erase(self, request: Any) -> Any:
        """Return the page of a deletion: its form, its count, or its progress; a POST counts, deletes or stops."""
        require(request, KEYS)
        require(request, CLEAR)
        if request.method not in {"GET", "HEAD", "POST"}:
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        if request.method == "POST":
            return self._act_on(request)
        state = self._state(request, request.GET.get("state"))
        alias, _, wrong = self._chosen(state["alias"] if state else request.GET.get("cache"))
        shown = _shown(state) if state else {}
        asked = {"pattern": request.GET.get("pattern", "*"), "show": request.GET.get("show", "")}
        context = {
            **asked,
            **shown,
            "hides": bool(hidden(request)),
            "alias": alias,
            "wrong": wrong,
            "versions": VERSIONS,
            "list": self.url(cache=alias),
        }
        return self.render(request, "admin/fleetcache/erase.html", context)

    # --- its state --------------------------------------------------------------------------------

    def _state(self, request: Any, token: str | None) -> dict[str, Any]:
        """Return the state in *token*, {} without one; refuse one that is not this user's."""
        if not token:
            return {}
        try:
            state: dict[str, Any] = signing.loads(token, salt=SALT, max_age=LASTS)
        except signing.BadSignature as error:
            raise Http404("this deletion is too old, or its address is not complete") from error
        if state["user"] != request.user.pk:
            raise Http404("this deletion is another user's")
        return {**state, "token": token}

    def _at(self, state: dict[str, Any]) -> Any:
        """Return a redirection to the page that shows *state*."""
        token = signing.dumps(
            {name: value for name, value in state.items() if name != "token"}, salt=SALT, compress=True
        )
        return HttpResponseRedirect(self.url("erase", state=token))

    # --- acts -------------------------------------------------------------------------------------

    def _act_on(self, request: Any) -> Any:
        act, state = request.POST.get("act", ""), self._state(request, request.POST.get("state"))
        if act == "count" and not state:
            return self._count(request)
        if act not in {"begin", "step", "stop"} or not state:
            raise Http404("there is no such act")
        alias, cache, wrong = self._chosen(state["alias"])
        if cache is None:
            raise Http404(wrong)
        if act == "stop":
            return self._stop(request, alias, state)
        if act == "begin":
            if not (state["dry"] and state["cursor"] is None and not state["began"]):
                raise Http404("this deletion has begun, or was not counted")
            self.note(
                request, alias, f"Began to delete {_meant(state)}, about {showing.number(state['matched'])} keys."
            )
            state = {**state, **BEGINNING, "dry": False, "total": state["total"]}
        return self._step(request, alias, cache, state)

    def _count(self, request: Any) -> Any:
        alias, cache, wrong = self._chosen(request.POST.get("cache"))
        if cache is None:
            raise Http404(wrong)
        pattern, show = request.POST.get("pattern", "").strip(), request.POST.get("show", "")
        if not pattern or show not in VERSIONS:
            self.tell(request, "Say which keys: * stands for all.", level="error")
            return HttpResponseRedirect(self.url("erase", cache=alias))
        state = {"user": request.user.pk, "alias": alias, "pattern": pattern, "show": show, "dry": True, **BEGINNING}
        return self._step(request, alias, cache, state)

    def _step(self, request: Any, alias: str, cache: Any, state: dict[str, Any]) -> Any:
        """Take one step, and show where it has come."""
        if state["cursor"] is None and not state["began"]:
            return self._at(state)  # it had ended
        version = keys.ALL if state["show"] == "all" else None
        try:
            with blamed(cache):
                step = next(
                    keys.delete_pattern(
                        cache,
                        state["pattern"],
                        dry_run=state["dry"],
                        version=version,
                        cursor=state["cursor"],
                        budget=BUDGET,
                        without=hidden(request),
                    )
                )
        except SiteFailed as error:
            return self._at({**state, "trouble": self.failure(request, error)[:300]})
        except (ValueError, SettingsError) as error:
            self.tell(request, str(error), level="error")
            return HttpResponseRedirect(self.url("erase", cache=alias))
        except TROUBLE as error:
            return self._at({**state, "trouble": str(error)[:300]})
        samples = [*state["samples"], *(_sample(cache, name) for name in step.samples)][:SAMPLES]
        state = {
            **state,
            "cursor": step.cursor,
            "began": False,
            "scanned": step.scanned,
            "total": max(step.total, state["total"]),  # what was deleted was there too
            "matched": step.matched + (0 if step.restarted and state["dry"] else state["matched"]),
            "deleted": step.deleted + state["deleted"],
            "samples": samples,
            "away": sorted({*state["away"], *step.away}),
            "trouble": "",
        }
        if step.done and not state["dry"]:
            self.note(request, alias, f"Deleted {_meant(state)}: {showing.number(state['deleted'])} keys.")
        return self._at(state)

    def _stop(self, request: Any, alias: str, state: dict[str, Any]) -> Any:
        if state["dry"]:
            return self.back(alias)
        deleted = showing.number(state["deleted"])
        self.note(request, alias, f"Stopped deleting {_meant(state)}, after {deleted} keys.")
        self.tell(request, f"Stopped. {deleted} keys were deleted.", level="warning")
        return self.back(alias)


BEGINNING: dict[str, Any] = {
    "cursor": None,
    "began": True,
    "scanned": 0,
    "total": 0,
    "matched": 0,
    "deleted": 0,
    "samples": [],
    "away": [],
    "trouble": "",
}
"""What the state holds before the first step."""


def _shown(state: dict[str, Any]) -> dict[str, Any]:
    """Return what the page shows of *state*."""
    done, total = state["cursor"] is None and not state["began"], state["total"]
    scanned = total if done else min(state["scanned"], total)
    return {
        "state": state["token"],
        "pattern": state["pattern"],
        "show": state["show"],
        "dry": state["dry"],
        "done": done,
        "scanned": scanned,
        "total": total,
        "scanned_text": showing.number(scanned),
        "total_text": showing.number(total),
        "matched": showing.number(state["matched"]),
        "deleted": showing.number(state["deleted"]),
        "none": state["matched"] == 0,
        "samples": state["samples"],
        "away": state["away"],
        "trouble": state["trouble"],
    }


def _sample(cache: Any, name: bytes) -> str:
    """Return the key in *name*; that of a session masked, since it lets its reader take the session over."""
    key = parts(cache, name)[1]
    key = keys.masked_key(key) if SESSIONS in key else key
    return key if len(key) <= LONGEST_SAMPLE else f"{key[:LONGEST_SAMPLE]}…"


def _meant(state: dict[str, Any]) -> str:
    """Return which keys are meant, for the log; a pattern that is a key is masked."""
    pattern = state["pattern"] if special.search(state["pattern"]) else keys.masked_key(state["pattern"])
    return f"keys that match {pattern[:200]} in {VERSIONS[state['show']]}"
