"""The caches: what each is worth, and how it does."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from fleetcache.django.admin import charts, showing
from fleetcache.django.admin.site import Page, opened
from fleetcache.django.backend import entries


class Overview(Page):
    """One row for each entry of ``CACHES``."""

    slug = "overview"
    title = "Caches"
    template = "admin/fleetcache/overview.html"
    chooses = False

    def context(self, request: Any, alias: str, cache: Any) -> dict[str, Any]:
        """Return a row for each of fleetcache's caches, and the names of the others."""
        ours = [name for name, *_ in entries()]
        return {"rows": [_row(name) for name in ours], "others": [name for name in settings.CACHES if name not in ours]}


def _row(alias: str) -> dict[str, Any]:
    cache, wrong = opened(alias)
    if cache is None:
        return {"alias": alias, "wrong": wrong}
    groups = cache.snapshot().get("groups", {}).values()
    reads = {level: sum(group[level] for group in groups) for level in charts.LEVELS}
    whole = sum(reads.values())
    ratio = showing.percent(whole - reads["missed"], whole)
    return {"alias": alias, "ratio": ratio, "bar": charts.bar(reads, f"{ratio} of {whole} reads found a value")}
