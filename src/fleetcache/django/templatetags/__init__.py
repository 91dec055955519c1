"""Template tags; Django finds them if ``fleetcache.django`` is in INSTALLED_APPS.

Its modules:

    fleetcache   ``{% load fleetcache %}``
"""
