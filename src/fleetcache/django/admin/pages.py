"""The list of pages."""

from __future__ import annotations

from fleetcache.django.admin.keys import Keys
from fleetcache.django.admin.overview import Overview
from fleetcache.django.admin.site import Page

PAGES: tuple[type[Page], ...] = (
    # In the order of the navigation.  A new page is a `Page` in a module of its own, and a line here.
    Overview,
    Keys,
)
