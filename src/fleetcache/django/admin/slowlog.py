"""The servers' slow logs: which commands took long, or had large requests or replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fleetcache.django.admin import showing
from fleetcache.django.admin.asking import Budget, Trouble, ask, primaries
from fleetcache.django.admin.site import Page, hides
from fleetcache.exchange.contract import Reply, Server, Verb

SLOWLOG, COMMANDLOG = Verb("SLOWLOG", reads=True, key=0), Verb("COMMANDLOG", reads=True, key=0)

MOST = 50
"""How many commands of each log are shown, the last ones."""

LONGEST = 100
"""How many letters of an argument are shown."""

ARGUMENTS = 8
"""How many arguments are shown."""

SECONDS = 1.0
"""After this long, no further servers are asked."""

LOGS = (
    ("slow", "Slow commands", lambda figure: showing.seconds(figure / 1e6) if figure else "< 1 µs"),
    ("large-request", "Large requests", showing.size),
    ("large-reply", "Large replies", showing.size),
)
"""The logs of Valkey 8.1 and later; Redis has the first only."""


class SlowLog(Page):
    """The logs of each primary."""

    slug = "slowlog"
    title = "Slow log"
    template = "admin/fleetcache/slowlog.html"

    def context(self, request: Any, alias: str, cache: Any) -> dict[str, Any]:
        """Return the logs of each primary of *cache*; arguments only for those who may see keys."""
        servers = primaries(cache)
        if isinstance(servers, Trouble):
            return {"wrong": servers.text}
        budget = Budget(SECONDS)
        sees = self.sees_keys(request)

        def shows(arguments: str) -> bool:
            return sees and not hides(request, arguments)

        return {"servers": [_server(server, shows, budget) for server in servers], "most": MOST}


def _server(server: Server, shows: Callable[[str], bool], budget: Budget) -> dict[str, Any]:
    found: dict[str, Any] = {"address": server.address, "logs": []}
    if budget.over:
        return {**found, "wrong": "Not asked: the servers above took too long."}
    replies = ask(server, *((COMMANDLOG, "GET", MOST, log) for log, *_ in LOGS))
    if isinstance(replies, Trouble):
        return {**found, "wrong": replies.text}
    if all(isinstance(reply, Trouble) for reply in replies):
        replies = ask(server, (SLOWLOG, "GET", MOST))
        if isinstance(replies, Trouble):
            return {**found, "wrong": replies.text}
    for (_, title, text), reply in zip(LOGS, replies, strict=False):
        if isinstance(reply, Trouble):
            found["logs"].append({"title": title, "wrong": _refusal(reply)})
        else:
            found["logs"].append({"title": title, "entries": [_entry(each, text, shows) for each in _lists(reply)]})
    return found


def _refusal(reply: Trouble) -> str:
    if reply.denied:
        return f"The server does not allow this user to read it. {reply.text}"
    return f"The server has none. {reply.text}"


def _lists(reply: Reply) -> list[Sequence[Any]]:
    return [each for each in reply if isinstance(each, list) and len(each) >= 4] if isinstance(reply, list) else []


def _entry(entry: Sequence[Any], text: Any, shows: Callable[[str], bool]) -> dict[str, Any]:
    _, at, figure, words, *client = entry
    command, *arguments = words if isinstance(words, list) and words else [b""]
    shown = " ".join(map(_shown, arguments[:ARGUMENTS]))
    return {
        "at": showing.moment(at),
        "figure": text(figure),
        "command": _shown(command).upper(),
        "arguments": shown if shows(shown) else "",
        "count": showing.number(len(arguments)),
        "more": len(arguments) > ARGUMENTS or not shows(shown),
        "client": " ".join(_shown(part) for part in client if part),
    }


def _shown(word: Any) -> str:
    text = word.decode(errors="backslashreplace") if isinstance(word, bytes) else str(word)
    text = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text[: LONGEST + 1])
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
