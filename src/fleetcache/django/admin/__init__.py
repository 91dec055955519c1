"""The pages of Django's admin: what the cache is worth, what it does, and what is wrong with it.

With ``fleetcache.django`` and ``django.contrib.admin`` in INSTALLED_APPS the pages are in the index of the admin.  For a further
`AdminSite`, call `register` with it.

Its modules:

    pages        the list of pages
    site         what they have in common: permissions, the navigation, acts
    asking       questions to servers, each with a bound
    found        names on servers, found by a bounded walk
    tables       tables that are sorted and shown page by page by links
    showing      figures as text
    charts       figures as pictures, in SVG
    overview     the caches
    workers      the processes that use a cache, and their near caches
    groups       groups of keys, and what each is worth
    keys         the keys that a cache holds: found, described, changed, deleted
    erasing      deletion by pattern, in steps
    tags         tags, and their invalidation
    held         leases and locks that somebody holds now
    slowlog      the servers' slow logs
    doctor       what is wrong with a cache
"""

from __future__ import annotations

from typing import Any


def register(site: Any) -> None:
    """Add the pages to *site*, an ``AdminSite``; once more does nothing."""
    from fleetcache.django.admin.pages import PAGES
    from fleetcache.django.admin.site import model_of

    for page in PAGES:
        model = model_of(page)
        if not site.is_registered(model):
            site.register(model, page)
