"""What is wrong with a cache, its servers and its settings."""

from __future__ import annotations

from typing import Any

from fleetcache.django.admin.site import VIEW, Page, commands, opened
from fleetcache.django.backend import entries
from fleetcache.fleet import gather
from fleetcache.inspection.blame import SiteFailed, blamed
from fleetcache.inspection.doctor import examine


class Doctor(Page):
    """The findings of `fleetcache.inspection.doctor`."""

    slug = "doctor"
    title = "Doctor"
    template = "admin/fleetcache/doctor.html"
    acts = {"probe": VIEW}  # noqa: RUF012 - ClassVar in the base

    def context(self, request: Any, alias: str, cache: Any) -> dict[str, Any]:
        """Return the findings about *cache*; nothing is written."""
        return {
            "findings": _findings(alias, cache, probes=False),
            "probed": False,
            "command": commands(alias)("doctor"),
        }

    def act_probe(self, request: Any, alias: str, cache: Any) -> Any:
        """Show the findings, those of a probe too, which writes one small entry that expires."""
        found = {"findings": _findings(alias, cache, probes=True), "probed": True, "command": commands(alias)("doctor")}
        return self.render(request, self.template, {"alias": alias, **found})


def _findings(alias: str, cache: Any, *, probes: bool) -> list[Any]:
    others = {name: other for name, *_ in entries() if name != alias and (other := opened(name)[0]) is not None}
    try:
        with blamed(cache):
            fleet = gather(cache)
    except SiteFailed:
        fleet = None  # `examine` says so
    return examine(cache, alias=alias, others=others, fleet=fleet, probes=probes, commands=commands(alias))
