"""Settings of the demo site.  Two sites differ in the BACKEND line of their cache, or in its OPTIONS."""

import json
import os
from pathlib import Path

CACHES = {
    "default": {
        "BACKEND": os.environ["ATLAS_BACKEND"],
        "LOCATION": os.environ["ATLAS_LOCATION"],
        "KEY_PREFIX": "atlas",
        "TIMEOUT": 3600,
        "OPTIONS": json.loads(os.environ["ATLAS_OPTIONS"]),
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
