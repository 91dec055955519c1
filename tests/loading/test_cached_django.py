"""``fleetcache.django.cached``: Django's caches, views with their decorators, models and querysets as arguments."""

# ruff: noqa: E402 - Django is configured before it is imported

from __future__ import annotations

import asyncio

import pytest
from tests.caches import own_prefix
from tests.django_settings import configure

configure()

from asgiref.sync import iscoroutinefunction
from django.contrib.auth.models import AnonymousUser, User
from django.core.cache import caches
from django.db.models import TextChoices
from django.http import HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import cache_control
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET

from fleetcache.django import cached
from fleetcache.errors import InvalidCacheBackendError, InvalidKey

pytestmark = pytest.mark.newest


def entry(name):
    return {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": f"memory://{name}", "KEY_PREFIX": own_prefix()}


@pytest.fixture(autouse=True)
def site():
    """Two caches, and views."""
    with override_settings(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        MIDDLEWARE=[],
        CACHES={
            "default": entry("cached-a"),
            "other": entry("cached-b"),
            "dummy": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
        },
    ):
        made.clear()
        yield
        caches.close_all()


made: list = []


class Status(TextChoices):
    OPEN = "open"
    CLOSED = "closed"


@cached(300)
def label(status, user_id=None):
    made.append(status)
    return f"{status} {len(made)}"


@cached(300, cache="other", key="user:{user.pk}:{status}")
def of_user(user, status="open"):
    made.append(user)
    return f"{user.pk} {len(made)}"


def page_key(request, number):
    return f"page:{number}:{request.GET.get('language', '')}"


@require_GET
@cache_control(max_age=5)
@cached(300, key=page_key)
@csrf_exempt
def page(request, number):
    made.append(number)
    return HttpResponse(f"page {number}, {len(made)}")


@require_GET
@cached(300, key=page_key)
async def apage(request, number):
    made.append(number)
    return HttpResponse(f"page {number}, {len(made)}")


urlpatterns = [path("page/<int:number>", page), path("apage/<int:number>", apage)]


def test_djangos_caches_are_found():
    """Without an alias the default cache of CACHES keeps the results."""
    assert label("open") == label("open") == "open 1"
    assert of_user(User(pk=5)) == of_user(user=User(pk=5, username="other")) == "5 2"

    assert caches["default"].get(label.key("open")) == "open 1"
    assert caches["other"].get("user:5:open") == "5 2"
    assert of_user.invalidate(User(pk=5)) is True
    assert caches["other"].get("user:5:open") is None


def test_another_backend_is_refused_when_it_is_called():
    """The error names the alias and what would do."""
    function = cached(300, key="key", cache="dummy")(lambda: 1)

    with pytest.raises(InvalidCacheBackendError, match=r"CACHES\['dummy'\] is of the class DummyCache.*memory://"):
        function()


def test_a_view_is_kept_with_decorators_above_and_below():
    """Responses are kept by the key of the request; decorators see the view that they expect."""
    client = Client()

    first = client.get("/page/5")
    assert (first.content, first["Cache-Control"]) == (b"page 5, 1", "max-age=5")
    assert client.get("/page/5").content == b"page 5, 1"
    assert client.get("/page/5?language=de").content == b"page 5, 2"
    assert client.post("/page/5").status_code == 405
    assert page.csrf_exempt is True


def test_a_view_that_is_awaited():
    """Django and asgiref take a coroutine function with a cache as one."""

    async def ask():
        client = AsyncClient()
        return [(await client.get("/apage/5")).content for _ in range(2)]

    assert asyncio.run(ask()) == [b"page 5, 1", b"page 5, 1"]
    assert iscoroutinefunction(apage)


def test_what_django_calls_text():
    """Choices and safe texts are told from plain ones in the function's own key; in a template all are text."""
    keys = [label.key(value) for value in ("open", Status.OPEN, mark_safe("open"))]

    assert len(set(keys)) == 3
    assert of_user.key(User(pk=1), Status.OPEN) == of_user.key(User(pk=1), mark_safe("open")) == "user:1:open"


@pytest.mark.parametrize(
    "value, kind",
    [
        (User(pk=5), "User"),
        (AnonymousUser(), "AnonymousUser"),
        (User.objects.all(), "QuerySet"),
        (SimpleLazyObject(lambda: 1 / 0), "SimpleLazyObject"),
        (gettext_lazy("open"), "__proxy__"),
    ],
    ids=["model", "anonymous", "queryset", "lazy object", "lazy text"],
)
def test_what_django_evaluates_is_refused(value, kind):
    """A model's text may be that of another one; querysets and lazy objects are not evaluated."""
    with pytest.raises(InvalidKey, match=rf"label\(\): the argument 'status' is of type {kind}"):
        label(value)


def test_an_attribute_of_a_lazy_user():
    """``request.user`` is lazy, and its primary key is a key."""
    assert of_user.key(SimpleLazyObject(lambda: User(pk=7))) == "user:7:open"
