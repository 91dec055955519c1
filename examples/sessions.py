"""Sessions in the cache, with a copy in the database or without; one file is the whole site."""

import os
import sys

import django
from django.conf import settings
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="examples",
    INSTALLED_APPS=["django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE=f"django.contrib.sessions.backends.{sys.argv[1]}",  # cache or cached_db
    CACHES={
        "default": {
            "BACKEND": "fleetcache.django.RedisCache",
            "LOCATION": os.environ["FLEETCACHE_URL"],
            "OPTIONS": {"IGNORE_EXCEPTIONS": True, "SOCKET_TIMEOUT": 0.5},
        }
    },
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "sessions.sqlite3"}},
)
django.setup()


def visit(request):
    """Count the visits of a session."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))


urlpatterns = [path("", visit)]

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    visitor = Client(headers={"cookie": f"sessionid={sys.argv[2]}"} if sys.argv[2:] else None)
    visits = [visitor.get("/", raise_request_exception=False) for _ in range(3)]
    print([answer.content.decode()[:10] for answer in visits], *visitor.cookies["sessionid"].value.split())
