"""A page that is kept for each visitor, and a part of it that all share; one file is the whole site."""

import os

import django
from django.conf import settings
from django.core.cache import cache
from django.http import HttpResponse
from django.template import engines
from django.test import Client
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["fleetcache.django"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    CACHES={
        "default": {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": os.environ["FLEETCACHE_URL"]},
    },
)
django.setup()

from fleetcache.django import cache_page  # noqa: E402 - after the settings

BOOK = '{% load fleetcache %}{{ title }}{% cached 600 "sidebar" tags="books" %}, {{ best }}{% endcached %}'
made = {"page": 0, "sidebar": 0}


def best():
    """Return the best book of all, by a slow query; the template calls it only to make the sidebar."""
    made["sidebar"] += 1
    return "the best is Emma"


def shown(request, number):
    """Return the tags of the page; without the request, ``tags=["book:{number}"]`` would do."""
    return [f"book:{number}", f"host:{request.get_host()}"]


@cache_page(600, tags=shown, stale_while_revalidate=60)
def book(request, number):
    """Show a book."""
    made["page"] += 1
    page = engines["django"].from_string(BOOK)
    return HttpResponse(page.render({"title": f"Book {number}", "best": best}, request))


urlpatterns = [path("books/<int:number>", book)]

if __name__ == "__main__":
    for tags in ([], [], ["book:1"], ["books", "book:1"]):
        cache.invalidate_tags(*tags) if tags else None
        print(Client().get("/books/1").content.decode(), made)
