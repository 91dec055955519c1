"""A Django site with an admin: its settings, its users, and a server for browsers."""

# ruff: noqa: E402 - Django is configured before it is imported

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache as memoized
from typing import Any

from tests.django_settings import configure

configure()

from django.core.management import call_command
from django.test import Client, override_settings

from fleetcache.fleet.publishing import PUBLISHING, USUAL

SETTINGS: dict[str, Any] = {
    "INSTALLED_APPS": [
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
        "fleetcache.django",
    ],
    "MIDDLEWARE": [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    "ROOT_URLCONF": "tests.admin.urls",
    "STATIC_URL": "/static/",
    "TIME_ZONE": "UTC",
    "ALLOWED_HOSTS": ["*"],
    "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
}
"""As ``startproject`` writes them."""


@contextmanager
def site(caches: dict[str, Any], **settings: Any) -> Iterator[None]:
    """Make the process a site with an admin and these *caches*."""
    usual, before = USUAL.seconds, {*PUBLISHING.publishers}
    try:
        with override_settings(**{**SETTINGS, "CACHES": caches, **settings}):
            _migrate()
            yield
    finally:
        USUAL.seconds = usual  # the app has set it for the process
        for source in {*PUBLISHING.publishers} - before:
            del PUBLISHING.publishers[source]
        PUBLISHING.wake.ring()


@memoized
def _migrate() -> None:
    call_command("migrate", verbosity=0)


def user(*permissions: str, staff: bool = True, superuser: bool = False) -> Any:
    """Return a new user with some of fleetcache's *permissions*."""
    from django.contrib.auth.models import Permission, User

    name = f"user{User.objects.count()}"
    made = User.objects.create(username=name, is_staff=staff, is_superuser=superuser)
    for permission in permissions:
        made.user_permissions.add(Permission.objects.get(content_type__app_label="fleetcache", codename=permission))
    return made


def client(*permissions: str, **kind: Any) -> Client:
    """Return a client at which such a user has logged in; it sends the tokens of forms only if it is told to."""
    found = Client(enforce_csrf_checks=kind.pop("csrf", False))
    found.force_login(user(*permissions, **kind))
    return found
