"""The list of pages."""

from __future__ import annotations

from fleetcache.django.admin.doctor import Doctor
from fleetcache.django.admin.groups import Groups
from fleetcache.django.admin.held import Leases
from fleetcache.django.admin.keys import Keys
from fleetcache.django.admin.overview import Overview
from fleetcache.django.admin.site import Page
from fleetcache.django.admin.slowlog import SlowLog
from fleetcache.django.admin.tags import Tags
from fleetcache.django.admin.workers import Workers

PAGES: tuple[type[Page], ...] = (
    # In the order of the navigation.  A new page is a `Page` in a module of its own, and a line here.
    Overview,
    Workers,
    Groups,
    Keys,
    Tags,
    Leases,
    SlowLog,
    Doctor,
)
