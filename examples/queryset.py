"""The rows of a query are kept, and given up when a row is saved; one file is the whole site."""

import os

import django
from django.conf import settings
from django.core.cache import cache
from django.db import connection, models, transaction
from django.db.models.signals import post_delete, post_save
from django.test.utils import CaptureQueriesContext

settings.configure(
    INSTALLED_APPS=[__name__],
    CACHES={
        "default": {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": os.environ["FLEETCACHE_URL"]},
    },
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()


class Book(models.Model):
    title = models.CharField(max_length=100)

    class Meta:
        app_label = __name__


def books() -> list[Book]:
    """Return the first hundred books."""
    # `list` runs the query here, in the loader.  A queryset would run it when it is pickled.
    return cache.get_or_set("books", lambda: list(Book.objects.order_by("title")[:100]), 600, tags=["books"])


def changed(**_):
    """Give up what was made of books, after the transaction: a reader before that would keep the old rows."""
    transaction.on_commit(lambda: cache.invalidate_tags("books", later=True))


post_save.connect(changed, Book)
post_delete.connect(changed, Book)

if __name__ == "__main__":
    with connection.schema_editor() as schema:
        schema.create_model(Book)
    for title in ("Emma", "Dracula"):
        Book.objects.create(title=title)
        with CaptureQueriesContext(connection) as queries:
            found = [[book.title for book in books()] for _ in range(3)]
        print(f"{len(found)} times {found[0]}, {len(queries)} query")
