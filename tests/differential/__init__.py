"""Differential tests: what django-redis 7.0.0 does is asked of itself, in the same run.

A *case* is a function that calls a cache.  It is run on django-redis and on fleetcache, on the
same server, and the outcome of every call, and everything on the server afterwards, has to agree::

    sides      how a case is run, and what agreeing means
    settings   the configurations that cases are run in
    values, counting, keys, structures    the cases
    mended     where fleetcache is meant to differ, with the reason and both outcomes
"""
