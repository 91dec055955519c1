"""A throttle of Django REST framework that refuses while nobody can count; one file is the whole site."""

import os

import django
from django.conf import settings
from django.core.cache import caches
from django.test import Client
from django.urls import path

CACHE = {
    "BACKEND": "fleetcache.django.RedisCache",
    "LOCATION": os.environ["FLEETCACHE_URL"],
    "OPTIONS": {"IGNORE_EXCEPTIONS": True},
}
settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    CACHES={"default": CACHE},
    REST_FRAMEWORK={"UNAUTHENTICATED_USER": None},  # this site has no users
)
django.setup()

from redis.exceptions import RedisError  # noqa: E402 - after the settings
from rest_framework.exceptions import APIException  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.throttling import AnonRateThrottle  # noqa: E402
from rest_framework.views import APIView  # noqa: E402


class Uncounted(APIException):
    status_code = 503
    default_detail = "Requests cannot be counted now. Try again in a minute."


class StrictThrottle(AnonRateThrottle):
    rate = "5/min"
    # This raises in an outage, also with IGNORE_EXCEPTIONS.
    cache = property(lambda self: caches["default"].strict)

    def allow_request(self, request, view):
        try:
            return super().allow_request(request, view)
        except RedisError as error:
            raise Uncounted from error


class Login(APIView):
    throttle_classes = (StrictThrottle,)

    def post(self, request):
        return Response("welcome")


urlpatterns = [path("login", Login.as_view())]

if __name__ == "__main__":
    print([Client().post("/login").status_code for _ in range(6)])
