"""A throttle of Django REST framework that fails closed: in an outage it refuses, where the framework's own lets all through.

In a site's settings: ``REST_FRAMEWORK = {"DEFAULT_THROTTLE_CLASSES": ["examples.drf_throttle.StrictThrottle"]}``.
"""

from django.core.cache import caches
from redis.exceptions import RedisError
from rest_framework.throttling import SimpleRateThrottle


class StrictThrottle(SimpleRateThrottle):
    """At most so many requests as *rate* says, for each address."""

    rate = "5/min"
    scope = "strict"

    @property
    def cache(self):
        """The cache with every exception raised, also with IGNORE_EXCEPTIONS."""
        return caches["default"].strict

    def get_cache_key(self, request, view):
        """Return the key of the visitor's counter."""
        return self.cache_format % {"scope": self.scope, "ident": self.get_ident(request)}

    def allow_request(self, request, view):
        """Whether the request may pass; not while nobody can count."""
        try:
            return super().allow_request(request, view)
        except RedisError:
            self.history, self.now = [], self.timer()
            return False
