"""A Django page that is kept with a tag, made of a queryset that is kept as a list; one file is the whole site.

FLEETCACHE_URL=redis://127.0.0.1:6379/0 python examples/django_page.py
"""

import os

import django
from django.conf import settings
from django.http import HttpResponse
from django.test import Client
from django.urls import path

CACHE = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": os.environ.get("FLEETCACHE_URL", "memory://")}
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, CACHES={"default": CACHE}, SECRET_KEY="examples")
django.setup()

from django.core.cache import cache  # noqa: E402 - after the settings

from fleetcache.django import cache_page  # noqa: E402

made = []


@cache_page(600, tags=lambda request, number: [f"book:{number}"])
def book(request, number):
    """Show a book."""
    titles = cache.get_or_set("titles", lambda: ["Emma", "Dracula"], 3600)  # list(Book.objects.values_list("title"))
    made.append(number)
    return HttpResponse(titles[number])


urlpatterns = [path("books/<int:number>", book)]

if __name__ == "__main__":
    visitor = Client()
    pages = [visitor.get("/books/1").content for _ in range(3)]
    cache.invalidate_tags("book:1")
    pages.append(visitor.get("/books/1").content)
    print(f"{len(pages)} pages {pages[0].decode()}, made {len(made)} times")
