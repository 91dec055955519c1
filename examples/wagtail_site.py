"""Wagtail: pages, parts of pages and renditions of images are cached until an editor publishes."""

import os
from functools import partial

import django
from django.conf import settings
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path

CACHE = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": os.environ["FLEETCACHE_URL"]}
FOOTER = '{% cached 600 "footer" tags="pages" %}, made by Wagtail{% endcached %}'
PAGE = "{% load fleetcache %}{{ page.title }}" + FOOTER
LOADERS = [("django.template.loaders.locmem.Loader", {"wagtailcore/page.html": PAGE})]
DJANGO = [f"django.contrib.{app}" for app in ("auth", "contenttypes", "messages", "sessions")]
ENGINE = "django.template.backends.django.DjangoTemplates"
MEMORY = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
WAGTAIL = ["wagtail", "wagtail.admin", "wagtail.documents", "wagtail.images", "wagtail.users", "taggit"]
settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["fleetcache.django", *WAGTAIL, *DJANGO],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    TEMPLATES=[{"BACKEND": ENGINE, "OPTIONS": {"loaders": LOADERS}}],
    STORAGES={"default": MEMORY, "staticfiles": MEMORY},
    CACHES={"default": CACHE, "renditions": {**CACHE, "KEY_PREFIX": "renditions", "TIMEOUT": 86_400}},
    WAGTAILADMIN_BASE_URL="http://site",
)
django.setup()

from wagtail.images.models import Image  # noqa: E402 - after the settings
from wagtail.images.tests.utils import get_test_image_file  # noqa: E402
from wagtail.models import Page  # noqa: E402
from wagtail.signals import page_published, page_slug_changed, page_unpublished, post_page_move  # noqa: E402
from wagtail.views import serve  # noqa: E402

from fleetcache.django import cache_page  # noqa: E402


def changed(**_):
    """Give up all pages: each may show the title of another, in a menu or a list."""
    cache.invalidate_tags("pages", later=True)


for signal in (page_published, page_unpublished, page_slug_changed, post_page_move):
    signal.connect(changed)

urlpatterns = [path("", cache_page(600, tags=["pages"], stale_if_error=86_400)(serve), {"path": ""})]


def cost(what, call):
    """Print what *call* returns, and whether it asked the database."""
    with CaptureQueriesContext(connection) as queries:
        print(f"{what}: {call()}, {'with queries' if queries else 'no query'}")


def visit():
    return Client().get("/").content.decode()


if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    cost("first", visit)
    cost("again", visit)
    home = Page.objects.get(slug="home")
    home.title = "News"
    home.save_revision().publish()
    cost("published", visit)
    Image.objects.create(title="test", file=get_test_image_file())
    for image in [*Image.objects.all(), *Image.objects.all()]:
        cost("rendition", partial(image.get_rendition, "width-100"))
