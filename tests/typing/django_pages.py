"""What type checkers know of a view whose pages are kept; mypy and pyright read this file, nothing runs it."""

from __future__ import annotations

from typing import Any, assert_type

from fleetcache.django import cache_page
from fleetcache.policy import Policy


@cache_page(600, tags=["article:{pk}"], stale_while_revalidate=60)
def article(request: Any, pk: int) -> bytes:
    return b""


assert_type(article(None, 5), bytes)
article(None, "5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def tags(request: Any) -> list[str]:
    return []


@cache_page(Policy(timeout=60), tags=tags, vary_on_user=False)
async def home(request: Any) -> bytes:
    return b""


async def use() -> None:
    assert_type(await home(None), bytes)
