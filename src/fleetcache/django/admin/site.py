"""What the pages have in common.

A page is a `Page`: a ``ModelAdmin`` whose only views are its own.  Django's index lists models, so each page has one.
These models are in a registry apart from Django's: they have no tables, content types or permissions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache as memoized
from functools import update_wrapper
from typing import Any, ClassVar

from django.apps.registry import Apps
from django.contrib import messages
from django.contrib.admin.options import ModelAdmin
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import models
from django.http import Http404, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.http import urlencode

from fleetcache.django.backend import SESSIONS, RedisCache, entries
from fleetcache.django.models import permitted
from fleetcache.errors import SettingsError
from fleetcache.inspection.advice import Commands
from fleetcache.inspection.blame import SiteFailed, blamed
from fleetcache.inspection.names import masked_key
from fleetcache.inspection.previews import printable

APP = "fleetcache"

VIEW, KEYS, UNPICKLE = "view_cache", "view_keys", "unpickle_value"
CHANGE, DELETE, CLEAR = "change_key", "delete_key", "clear_cache"
"""The permissions, see `fleetcache.django.models`."""

UNCOUNTED = "Nothing is counted: OPTIONS['STATS'] is off."
"""What a page of figures says of a cache that counts nothing."""

APART = Apps()
"""The registry of the pages' models."""


def commands(alias: str) -> Commands:
    """Return how commands about the cache *alias* are written."""
    return Commands("python manage.py fleetcache", alias=alias)


def allowed(request: Any, permission: str) -> bool:
    """Whether the user of *request* has *permission*, one of those above."""
    return bool(request.user.has_perm(f"{APP}.{permission}"))


def require(request: Any, permission: str) -> None:
    """Refuse *request* with status 403 unless its user has *permission*."""
    if not allowed(request, permission):
        raise PermissionDenied(f"this needs the permission {APP}.{permission}")


def hides(request: Any, text: str) -> bool:
    """Whether *text* is kept from the user in any case: the key of a session lets its reader take the session over."""
    return bool(hidden(request)) and hidden(request) in text


def hidden(request: Any) -> str:
    """Return the text whose names the user neither sees nor finds, nor counts; "" for superusers.

    A count would be enough to guess the key of a session letter by letter: each pattern says whether one begins so.
    """
    return "" if request.user.is_superuser else SESSIONS


class Page(ModelAdmin):
    """One page, with a row in the admin's index and a link in the navigation of every other page.

    A subclass sets the attributes below and writes `context`.  It may add views in `more`, and acts: see `acts`.
    """

    slug: ClassVar[str]
    """Its part of the URL, and of the names of its URLs: ``admin:fleetcache_SLUG_changelist``."""

    title: ClassVar[str]
    template: ClassVar[str]

    chooses = True
    """Whether it shows one cache, which ``?cache=`` names, and not all."""

    acts: ClassVar[Mapping[str, str]] = {}
    """The permission that each act needs, besides `VIEW`.

    An act is a method ``act_NAME(request, alias, cache)``, which a POST with ``act=NAME`` calls.  It returns a response,
    or None to go back to the page.
    """

    # --- what a page may define -------------------------------------------------------------------

    def context(self, request: Any, alias: str, cache: Any) -> dict[str, Any]:
        """Return what the template shows of *cache*; for a page that shows all caches, *alias* is empty, *cache* None."""
        raise NotImplementedError

    def more(self) -> list[tuple[str, str, Any]]:
        """Return further views: the route below the page's own, the view's name, and the view.

        A view is a method ``(request, **parts of the route)``.  Its user has `VIEW`; for anything else it calls `require`.
        Its URL's name is ``admin:fleetcache_SLUG_NAME``.
        """
        return []

    # --- rights -----------------------------------------------------------------------------------

    def has_module_permission(self, request: Any) -> bool:
        """Whether the user sees the page in the index."""
        return allowed(request, VIEW)

    def has_view_permission(self, request: Any, obj: Any = None) -> bool:
        """Whether the user may see the page."""
        return allowed(request, VIEW)

    def has_add_permission(self, request: Any, obj: Any = None) -> bool:
        """Nobody may: there are no rows."""
        return False

    has_change_permission = has_delete_permission = has_add_permission

    # --- views ------------------------------------------------------------------------------------

    def get_urls(self) -> list[Any]:
        """Return the page's URLs, and none of a table's."""
        views = [("", "changelist", self.show), *self.more()]
        return [path(route, self._guarded(view), name=f"{APP}_{self.slug}_{name}") for route, name, view in views]

    def _guarded(self, view: Any) -> Any:
        """Return *view* for users of the site with the permission `VIEW`, with Django's check of forms against forgery."""

        def guarded(request: Any, *args: Any, **kwargs: Any) -> Any:
            require(request, VIEW)
            try:
                with blamed():
                    return view(request, *args, **kwargs)
            except SettingsError as error:  # also what a function of the site has raised
                alias = request.POST.get("cache") or request.GET.get("cache", "")
                return self.render(request, self.template, {"alias": alias, "wrong": self.failure(request, error)})

        return self.admin_site.admin_view(update_wrapper(guarded, view))

    def show(self, request: Any) -> Any:
        """Return the page, or the result of an act."""
        if request.method == "POST":
            return self._act(request)
        if request.method not in {"GET", "HEAD"}:
            return HttpResponseNotAllowed(["GET", "HEAD", *(["POST"] if self.acts else [])])
        alias, cache, wrong = self._chosen(request.GET.get("cache")) if self.chooses else ("", None, "")
        with blamed(cache):
            found = self.context(request, alias, cache) if cache is not None or not self.chooses else {}
        return self.render(request, self.template, {"alias": alias, "wrong": wrong, **found})

    def _act(self, request: Any) -> Any:
        name = request.POST.get("act", "")
        if not self.acts:
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if name not in self.acts:
            raise Http404(f"there is no act {name!r}")
        require(request, self.acts[name])
        alias, cache, wrong = self._chosen(request.POST.get("cache"))
        if cache is None:
            raise Http404(wrong or "there is no cache")
        with blamed(cache):
            return getattr(self, f"act_{name}")(request, alias, cache) or self.back(alias)

    def render(self, request: Any, template: str, context: Mapping[str, Any]) -> Any:
        """Return the response with *template*, which extends ``admin/fleetcache/page.html``."""
        request.current_app = self.admin_site.name
        common = {
            **self.admin_site.each_context(request),
            "title": self.title,
            "page": self,
            "pages": self.navigation(request, context.get("alias", "")),
            "choices": [name for name, *_ in entries()] if self.chooses else [],
            "sees_keys": self.sees_keys(request),
            "may": {permission: allowed(request, permission) for permission in (CHANGE, DELETE, CLEAR, UNPICKLE)},
        }
        return TemplateResponse(request, template, {**common, **context})

    def sees_keys(self, request: Any) -> bool:
        """Whether keys, tags and the arguments of commands are shown in full."""
        return allowed(request, KEYS)

    def key(self, request: Any, key: str) -> str:
        """Return *key* as this user may see it, in full or masked."""
        return key if self.sees_keys(request) and not hides(request, key) else masked_key(key)

    def failure(self, request: Any, error: Exception) -> str:
        """Return what *error* says, without its own text if that may hold a key which this user may not see."""
        text = str(error)
        if isinstance(error, SiteFailed) and (not self.sees_keys(request) or hides(request, text)):
            return error.brief
        return text

    def confirmed(self, request: Any) -> bool:
        """Whether the user has answered `confirm` with yes."""
        return bool(request.POST.get("confirmed") == "yes")

    def confirm(self, request: Any, alias: str, sentence: str, text: str = "", *, button: str) -> Any:
        """Return a page that asks *sentence*; its *button* sends the request once more, with ``confirmed=yes``."""
        fields = [
            (name, value)
            for name, values in request.POST.lists()
            if name not in {"csrfmiddlewaretoken", "confirmed"}
            for value in values
        ]
        asked = {"sentence": sentence, "text": text, "button": button, "fields": fields, "action": request.path}
        back = self.url(cache=alias or None)
        return self.render(request, "admin/fleetcache/confirm.html", {"alias": alias, "back": back, **asked})

    # --- addresses --------------------------------------------------------------------------------

    def url(self, name: str = "changelist", kwargs: Mapping[str, Any] | None = None, /, **query: Any) -> str:
        """Return the address of one of the page's views; its *query* leaves out what is None or empty."""
        found = reverse(f"admin:{APP}_{self.slug}_{name}", kwargs=kwargs, current_app=self.admin_site.name)
        words = urlencode({word: value for word, value in query.items() if value not in {None, ""}})
        return f"{found}?{words}" if words else str(found)

    def back(self, alias: str, **query: Any) -> Any:
        """Return a redirection to the page of *alias*."""
        return HttpResponseRedirect(self.url(cache=alias, **query))

    def navigation(self, request: Any, alias: str) -> list[dict[str, Any]]:
        """Return a link to each page that this site has, and that the user may see."""
        found = []
        for page in self.admin_site._registry.values():  # in the order of `pages.PAGES`
            if isinstance(page, Page) and page.has_view_permission(request):
                url = page.url(cache=alias if page.chooses else None)
                found.append({"title": page.title, "url": url, "current": page.slug == self.slug})
        return found

    # --- caches -----------------------------------------------------------------------------------

    def _chosen(self, wanted: str | None) -> tuple[str, Any, str]:
        """Return the alias and the cache that a request wants, or None and what is wrong."""
        known = [alias for alias, *_ in entries()]
        if not known:
            return "", None, "No cache in CACHES has a BACKEND of fleetcache."
        alias = wanted or ("default" if "default" in known else known[0])
        if alias not in known:
            raise Http404(f"there is no cache {alias!r} of fleetcache")
        return alias, *opened(alias)

    def tell(self, request: Any, text: str, *, level: str = "success") -> None:
        """Show *text* above the next page."""
        messages.add_message(request, getattr(messages, level.upper()), text)

    def note(self, request: Any, alias: str, text: str) -> None:
        """Write what the user did to the cache *alias* into the admin's log."""
        from django.contrib.admin.models import CHANGE as CHANGED
        from django.contrib.admin.models import LogEntry
        from django.contrib.contenttypes.models import ContentType

        LogEntry.objects.create(
            user_id=request.user.pk,
            content_type_id=ContentType.objects.get_for_model(permitted()).pk,
            object_id=alias,
            object_repr=alias[:200],
            action_flag=CHANGED,
            change_message=printable(text),  # a key may have control characters, which PostgreSQL refuses
        )


def opened(alias: str) -> tuple[RedisCache | None, str]:
    """Return the cache *alias*, or None and why it cannot be used."""
    try:
        with blamed():
            cache = caches[alias]
            _ = cache.settings  # of settings that are wrong, the first use raises
    except (ImproperlyConfigured, SiteFailed) as error:
        return None, f"The settings of this cache are wrong: {error}"
    return cache, ""


@memoized
def _model_of(slug: str, title: str, module: str) -> Any:
    """Return a new model."""
    meta = type(
        "Meta",
        (),
        {
            "apps": APART,
            "app_label": APP,
            "managed": False,
            "verbose_name": title,
            "verbose_name_plural": title,
        },
    )
    return type(slug, (models.Model,), {"__module__": module, "Meta": meta})


def model_of(page: type[Page]) -> Any:
    """Return the model of *page*, by which the admin knows it."""
    return _model_of(page.slug, page.title, page.__module__)
