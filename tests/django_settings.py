"""Django's settings for the tests that need them, configured once per process."""

from __future__ import annotations

import django
from django.conf import settings


def configure() -> None:
    """Configure Django, unless somebody has."""
    if settings.configured:
        return
    settings.configure(
        SECRET_KEY="not secret",
        USE_TZ=True,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}},
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()
