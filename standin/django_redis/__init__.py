"""fleetcache under django-redis' names, for packages that import django_redis.  This is not django-redis."""

from __future__ import annotations

import warnings

from fleetcache.django import get_redis_connection
from fleetcache.django.standin import BOTH, both_installed

__all__ = ["VERSION", "__version__", "get_redis_connection"]

__version__ = "0.1.0"
VERSION = (0, 1, 0)

if both_installed():
    warnings.warn(BOTH, RuntimeWarning, stacklevel=2)
