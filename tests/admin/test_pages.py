"""Each page, over each kind of server: what it shows, and what it says it does not show."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import pytest
from django.test import Client
from tests.admin.site import client, site
from tests.caches import own_prefix

TO_VIEWERS = ("overview", "workers", "groups", "tags", "held", "slowlog", "doctor")
"""The pages that the permission ``view_cache`` opens."""

PAGES = (*TO_VIEWERS, "keys")


def of(location: Any, **options: Any) -> dict[str, Any]:
    """Return an entry of ``CACHES``, of a cache that does not publish its figures unless *options* say so."""
    options = {"STATS": {"PUBLISH": 0}, **options}
    return {
        "BACKEND": "fleetcache.django.RedisCache",
        "LOCATION": location,
        "KEY_PREFIX": own_prefix(),
        "OPTIONS": options,
    }


def text_of(answer: Any) -> str:
    """Return what a page says, without its tags, and with single spaces."""
    content = answer.content.decode()
    main = content[content.index('id="content-main"') :]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", main)))


def see(browser: Client, page: str, **query: Any) -> str:
    """Return what *page* says; it has to be there."""
    answer = browser.get(f"/admin/fleetcache/{page}/", query)
    assert answer.status_code == 200, answer
    return text_of(answer)


@pytest.fixture(params=["valkey", "redis_debian", "cluster", "memory"])
def default(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The cache ``default`` of a site, on each kind of server."""
    from django.core.cache import caches

    places: dict[str, Callable[[], str]] = {
        "valkey": lambda: request.getfixturevalue("valkey").url(0),
        "redis_debian": lambda: request.getfixturevalue("redis_debian").tcp_url(0),
        "cluster": lambda: request.getfixturevalue("valkey_cluster").url(),
        "memory": lambda: "memory://admin-pages",
    }
    near = request.param in {"valkey", "cluster"}
    with site({"default": of(places[request.param](), NEAR=near)}):
        yield caches["default"]


@pytest.mark.parametrize("page", PAGES)
def test_page_is_there(default: Any, page: str) -> None:
    """Each page is there, for a user without and with all permissions."""
    default.set("users:1", 1)
    default.get("users:1")

    assert page not in TO_VIEWERS or see(client("view_cache"), page)
    assert see(client(superuser=True), page)
