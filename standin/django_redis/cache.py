from django_redis import client, exceptions, pool, util  # noqa: F401 - loaded with it, as there
from fleetcache.django import RedisCache, omit_exception

__all__ = ["CONNECTION_INTERRUPTED", "RedisCache", "omit_exception"]

CONNECTION_INTERRUPTED = object()
"""A value that code of django-redis' kind may let `omit_exception` return."""
