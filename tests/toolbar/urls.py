"""The pages of the site, and debug-toolbar's own."""

from __future__ import annotations

from debug_toolbar.toolbar import debug_toolbar_urls
from django.urls import path
from tests.toolbar import site

urlpatterns = [
    path("plain", site.plain),
    path("awaiting", site.awaiting),
    path("shop", site.shop),
    path("gathering", site.gathering),
    path("failing", site.failing),
    path("iterating", site.iterating),
    path("piped", site.piped),
    path("many/<int:count>", site.many),
    path("meeting/<name>", site.meeting),
    path("ameeting/<name>", site.ameeting),
    path("outliving", site.outliving),
    path("hidden", site.plain),
    *debug_toolbar_urls(),
]
