"""The pages of Django's admin: what the cache is worth, what it does, and what is wrong with it.

With ``fleetcache.django`` and ``django.contrib.admin`` in INSTALLED_APPS the pages are in the index of the admin.  For a further
`AdminSite`, call `register` with it.

Its modules:

    pages        the list of pages
    site         what they have in common: permissions, the navigation, acts
    asking       questions to servers, each with a bound
    fleet        the figures of all workers, or of this process
    showing      figures as text
    charts       figures as pictures, in SVG
    overview     the caches
    workers      the processes that use a cache, and their near caches
    groups       groups of keys, and what each is worth
    tags         tags, and their invalidation
    held         leases and locks that somebody holds now
    keys         keys, and what each holds
    erasing      deletion by pattern
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
