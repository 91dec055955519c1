"""The pages.  A character page reads some 35 keys in a dozen commands, as busy sites do."""

import os
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial

from django.conf import settings
from django.core.cache import cache
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from atlas import characters

FLAGS = ("currency", "banner", "search", "beta", "prices", "mail", "chat", "theme", "sale", "stock", "help")
CENSUS_KEPT = 0.4
"""Seconds."""


def served_by(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware: say in a header which backend this worker uses."""

    def answer(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["X-Served-By"] = settings.SERVED_BY
        return response

    return answer


def home(request: HttpRequest) -> HttpResponse:
    """How many characters there are, and the largest families."""
    return render(request, "home.html", {"total": len(characters.NAMES), **common()})


def search(request: HttpRequest) -> HttpResponse:
    """The characters with some text in their name."""
    text = request.GET.get("q", "").upper()
    codes = characters.found(text)
    entries = list(entries_of(codes[:40]).values())
    return render(request, "search.html", {"text": text, "count": len(codes), "entries": entries, **common()})


def family(request: HttpRequest, word: str) -> HttpResponse:
    """The characters whose name starts with one word, and how often each was looked at."""
    codes = cache.get_or_set(f"family:{word}", partial(characters.of_family, word))
    if not codes:
        raise Http404
    visits = cache.get_many([visits_key(code) for code in codes])
    context = {
        "word": word,
        "visits": sum(visits.values()),
        "entries": partial(entries_of, codes),
        **common(),
    }
    return render(request, "family.html", context)


def character(request: HttpRequest, code: int) -> HttpResponse:
    """One character: expensive to work out, cheap to read back."""
    if code not in characters.NAMES:
        raise Http404
    page = cache.get_or_set(page_key(code), partial(work_out, code))
    visits = count_visit(code)
    last = cache.get(last_key(code))
    cache.set_many({last_key(code): {"by": settings.SERVED_BY, "code": code, "at": datetime.now(UTC)}})

    seen = request.session.get("seen", [])
    request.session["seen"] = [code, *(other for other in seen if other != code)][:8]

    popular = cache.get_many([visits_key(other) for other in page["similar"]])
    context = {
        "page": page,
        "visits": visits,
        "last": last,
        "seen": seen,
        "popular": sum(popular.values()),
        "neighbours": entries_of(characters.neighbours(code)).values(),
        "similar": partial(entries_of, page["similar"]),
        **common(),
    }
    return render(request, "character.html", context)


async def peek(_request: HttpRequest, code: int) -> JsonResponse:
    """The same character for programs, read with the a-methods."""
    visits = await cache.aget(visits_key(code), 0)
    found = await cache.aget_many([page_key(code), last_key(code)])
    page = found.get(page_key(code))
    if page is None:
        raise Http404
    return JsonResponse(
        {
            "label": page["label"],
            "made": page["made"],
            "visits": visits,
            "last": found.get(last_key(code)),
        }
    )


def banner(_request: HttpRequest) -> JsonResponse:
    """A text that somebody edits now and then; with the time, on the machine's one clock, when it was read."""
    read = time.monotonic_ns()
    return JsonResponse({"worker": os.getpid(), "read": read, "edit": cache.get("banner")})


def edit_banner(_request: HttpRequest, number: int) -> JsonResponse:
    """Edit that text; a demo does it by GET."""
    cache.set("banner", number)
    return JsonResponse({"worker": os.getpid(), "acknowledged": time.monotonic_ns()})


def near(_request: HttpRequest) -> JsonResponse:
    """How many keys this worker has read from its memory, and how many from the server."""
    counts = cache.near.stats()
    return JsonResponse({"worker": os.getpid(), "hits": counts["hits"], "misses": counts["misses"]})


def enter(request: HttpRequest) -> HttpResponse:
    """Begin a session."""
    request.session["name"] = "Visitor"
    return HttpResponse("welcome")


def shelf(request: HttpRequest, number: int) -> HttpResponse:
    """A page that reads 40 keys: a session, 11 flags one by one, 4 fragments of templates, 24 entries at once."""
    flags = {}
    for name in FLAGS:
        flags[name] = cache.get(f"flag:{name}")
        if flags[name] is None:
            flags[name] = name
            cache.set(f"flag:{name}", name)
    codes = characters.shelf(number)
    context = {
        "number": number,
        "name": request.session.get("name", "stranger"),
        "flags": flags,
        "entries": entries_of(codes).values(),
        **common(),
    }
    return render(request, "shelf.html", context)


def census(_request: HttpRequest) -> JsonResponse:
    """An expensive page that is kept for a moment; the call is the same on every backend."""
    return JsonResponse(cache.get_or_set(f"census:{settings.SERVED_BY}", take_census, timeout=CENSUS_KEPT))


def take_census() -> dict[str, int]:
    """Ask the database, and note beside it when that began, on the machine's one clock."""
    with open(f"{settings.DATABASE}.{settings.SERVED_BY}", "a") as notes:
        notes.write(f"{time.monotonic()}\n")
    return characters.census(settings.DATABASE)


def work_out(code: int) -> dict[str, object]:
    """The costly part of a character page, with a note of who made it and when."""
    made = f"{settings.SERVED_BY}@{datetime.now(UTC).isoformat()}"
    return {**characters.entry(code), "similar": characters.similar(code), "made": made}


def entries_of(codes: Iterable[int]) -> dict[str, dict[str, object]]:
    """The entries of many characters, from the cache as far as it has them."""
    keys = {f"entry:{code}": code for code in codes}
    known = cache.get_many(keys)
    if missing := {key: characters.entry(code) for key, code in keys.items() if key not in known}:
        cache.set_many(missing)
    return {key: known.get(key) or missing[key] for key in keys}


def count_visit(code: int) -> int:
    """Count one visit; return how many there were."""
    try:
        return cache.incr(visits_key(code))
    except ValueError:
        cache.add(visits_key(code), 0, timeout=None)
        return cache.incr(visits_key(code))


def common() -> dict[str, object]:
    """What every page shows."""
    return {
        "families": lambda: characters.FAMILIES.most_common(24),
        "served_by": settings.SERVED_BY,
    }


def page_key(code: int) -> str:
    """Return where the costly part of a page is kept."""
    return f"page:{code}"


def visits_key(code: int) -> str:
    """Return where the visits of a character are counted."""
    return f"visits:{code}"


def last_key(code: int) -> str:
    """Return where a visitor leaves a note for the next one."""
    return f"last:{code}"
