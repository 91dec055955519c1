"""Settings of the demo site.  Between two runs only the cache's BACKEND line differs, or NEAR or LOADING in its OPTIONS."""

import os
from pathlib import Path

# What is kept near: what is read more often than it changes.  Not the sessions, of which each request writes one that
# the next, perhaps in another worker, must find as it was left; nor what each view of a page changes.
KEPT = ("banner", "entry:", "family:", "page:", "template.", "views.")
NEAR = {"NEAR": {"PREFIXES": [f"atlas:1:{kind}" for kind in KEPT]}}

# What is old is served while one thread renews it, and longer if that fails.
LOADING = {"LOADING": {"STALE_WHILE_REVALIDATE": 5, "STALE_IF_ERROR": 60, "RENEW": "thread"}}

CACHES = {
    "default": {
        "BACKEND": os.environ["ATLAS_BACKEND"],
        "LOCATION": os.environ["ATLAS_LOCATION"],
        "KEY_PREFIX": "atlas",
        "TIMEOUT": 3600,
        "OPTIONS": (NEAR if os.environ["ATLAS_NEAR"] else {}) | (LOADING if os.environ["ATLAS_LOADING"] else {}),
    }
}
DATABASE = os.environ["ATLAS_DATABASE"]
"""The file that only the census reads."""

SESSION_ENGINE = "django.contrib.sessions.backends.cache"

# Which site answered: shown on every page, kept beside every cached value.
SERVED_BY = os.environ["ATLAS_NAME"]

SECRET_KEY = "a demo keeps no secrets"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["django.contrib.sessions"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "atlas.views.served_by",
]
ROOT_URLCONF = "atlas.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).parent / "templates"],
    }
]
USE_TZ = True
# What goes wrong goes to stderr, where the demo finds it.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
}
