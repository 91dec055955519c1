"""``{% load fleetcache %}``: the tag ``{% cached %}``."""

from __future__ import annotations

from django.template import Library

from fleetcache.django.fragments import parse

register = Library()
register.tag("cached", parse)
