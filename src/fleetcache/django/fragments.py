"""The template tag ``{% cached %}``: a part of a page that is rendered once in the fleet."""

from __future__ import annotations

import re
from contextlib import suppress
from copy import copy
from dataclasses import fields
from datetime import timedelta
from functools import lru_cache
from types import NoneType
from typing import Any

from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheBackendError
from django.core.cache.utils import make_template_fragment_key
from django.core.exceptions import ImproperlyConfigured
from django.template import Node, TemplateSyntaxError, Variable, VariableDoesNotExist
from django.template.base import token_kwargs

from fleetcache.django.backend import cache_named
from fleetcache.django.rules import unknown
from fleetcache.marks import Timeout
from fleetcache.policy import MEANT, Policy

OPTIONS = {each.name for each in fields(Policy)} - {"timeout"} | {"tags", "using", *MEANT}

AMBIGUOUS = make_template_fragment_key("", ["a:b", "c"]) == make_template_fragment_key("", ["a", "b:c"])
"""Whether Django gives different values one key, as version 5.2 does if they hold colons."""

field = re.compile(r"\{([^{}]+)\}")


def fragment_key(name: str, *vary_on: Any) -> str:
    """Return the key of a fragment of ``{% cached %}``, for `cache.delete` and `cache.invalidate`.

    This is Django's ``make_template_fragment_key(name, vary_on)``, except that values with a colon are kept apart in
    Django 5.2 too.
    """
    values = [str(value) for value in vary_on]
    if AMBIGUOUS and len(values) > 1 and any(":" in value for value in values):
        apart: str = make_template_fragment_key(name, [f"{len(value)}:{value}" for value in values])
        return f"{apart}.apart"
    key: str = make_template_fragment_key(name, values)
    return key


def parse(parser: Any, token: Any) -> Fragment:
    """Return the fragment until ``{% endcached %}``, which is rendered once in the fleet.

    All that may be written::

        {% load fleetcache %}
        {% cached 600 "sidebar" user.pk tags="articles,user:{user.pk}" stale=60 using="alias" %}
            …
        {% endcached %}

    The name, and the values after it that the fragment varies on, are variables or quoted texts.  ``tags`` is a list, or a
    text with commas, in which ``{user.pk}`` is the value of a variable.  The timeout may be
    a `Policy`, and every field of a policy is an option too; ``stale`` is short for ``stale_while_revalidate``.  The
    cache is ``using``, else "template_fragments" if there is one, else "default".
    """
    nodes = parser.parse(("endcached",))
    parser.delete_first_token()
    tag, *bits = token.split_contents()
    given: list[Any] = []
    options: dict[str, Any] = {}
    for bit in bits:
        found = token_kwargs([bit], parser)
        if not found and options:
            raise TemplateSyntaxError(f"{tag}: {bit} stands after an option; values come first, then options")
        if not found:
            given.append(parser.compile_filter(bit))
        for option, expression in found.items():
            if option not in OPTIONS:
                raise TemplateSyntaxError(f"{tag}: {unknown(option, OPTIONS)}")
            if option in options:
                raise TemplateSyntaxError(f"{tag}: the option {option!r} is given twice")
            options[option] = expression
    if len(given) < 2:
        raise TemplateSyntaxError(f'{tag}: a timeout and a name are missing, as in {{% {tag} 600 "sidebar" %}}')
    return Fragment(tag, nodes, given[0], given[1], given[2:], options)


class Fragment(Node):
    """A part of a template that is kept in a cache."""

    def __init__(
        self, tag: str, nodelist: Any, timeout: Any, name: Any, vary_on: list[Any], options: dict[str, Any]
    ) -> None:
        self.tag, self.nodelist, self.timeout, self.name, self.vary_on = tag, nodelist, timeout, name, vary_on
        self.options = {MEANT.get(option, option): expression for option, expression in options.items()}
        if len(self.options) < len(options):
            raise TemplateSyntaxError(f"{tag}: stale and stale_while_revalidate are the same option")
        self.using = self.options.pop("using", None)
        self.tags = self.options.pop("tags", None)

    def render(self, context: Any) -> str:
        """Return the text of the cache, or render it."""
        name = self._known("name", self.name, context)
        if not isinstance(name, str) or not name:
            raise TemplateSyntaxError(f"{self.tag}: the name {self.name.token} is {name!r}; a text is expected")
        cache = self._cache(context)
        if cache is None:
            rendered: str = self.nodelist.render(context)
            return rendered
        key = fragment_key(name, *(expression.resolve(context) for expression in self.vary_on))
        policy = self._policy(context, cache)
        tags = () if self.tags is None else self._tags(context)
        # A stale fragment may be rendered in another thread, or later, when the page has other variables.
        variables = kept(context)
        # Plain `str` instead of Django's SafeString: each serializer can store it.
        text: str = cache.get_or_set(key, lambda: "".join((self.nodelist.render(variables),)), policy, tags=tags)
        return text

    def _known(self, what: str, expression: Any, context: Any) -> Any:
        """Return the value of *expression*, which must not be an unknown variable: that would be an empty text elsewhere."""
        value = expression.resolve(context, ignore_failures=True)
        if value is None:
            raise TemplateSyntaxError(
                f"{self.tag}: {what} is the variable {expression.token}, which is unknown or None; a text is quoted"
            )
        return value

    def _cache(self, context: Any) -> Any:
        """Return the cache to use, or None if it keeps nothing."""
        alias = None if self.using is None else self._known("using", self.using, context)
        if alias is None:
            alias = "template_fragments" if "template_fragments" in caches.settings else "default"
        try:
            return cache_named(alias)
        except (InvalidCacheBackendError, ImproperlyConfigured) as error:
            raise TemplateSyntaxError(f"{self.tag}: {error}") from error

    def _policy(self, context: Any, cache: Any) -> Timeout | Policy:
        """Return the timeout or the policy of the loading call."""
        timeout = number(self.timeout.resolve(context))
        if not isinstance(timeout, (int, float, timedelta, Policy, NoneType)):
            raise TemplateSyntaxError(
                f"{self.tag}: the timeout {self.timeout.token} is {timeout!r}; "
                f"seconds, None for ever, or a Policy is expected"
            )
        if not self.options:
            return timeout
        options = {name: number(self._known(name, given, context)) for name, given in self.options.items()}
        try:
            return policy_of(cache.settings.options.loading, timeout, tuple(options.items()))
        except (TypeError, ValueError) as error:
            raise TemplateSyntaxError(f"{self.tag}: {error}") from error

    def _tags(self, context: Any) -> list[str]:
        given = self._known("tags", self.tags, context)
        if not isinstance(given, str):
            try:
                return [str(tag) for tag in given]
            except TypeError as error:
                raise TemplateSyntaxError(
                    f"{self.tag}: tags is {given!r}; a list, or a text with commas is expected"
                ) from error
        # Only the template's own text is a pattern; the text in a variable may be a visitor's.
        tags = [tag for part in given.split(",") if (tag := part.strip())]
        return tags if self.tags.is_var else [self._filled(tag, context) for tag in tags]

    def _filled(self, tag: str, context: Any) -> str:
        """Return *tag* with the values of the variables that it names in braces."""

        def value(found: re.Match[str]) -> str:
            try:
                return str(Variable(found[1].strip()).resolve(context))
            except VariableDoesNotExist as error:
                raise TemplateSyntaxError(f"{self.tag}: the tag {tag!r} names an unknown variable: {error}") from error

        return field.sub(value, tag)


@lru_cache
def policy_of(usual: Policy | None, timeout: Timeout | Policy, options: tuple[tuple[str, Any], ...]) -> Policy:
    """Return the policy with these options; making one takes longer than reading a fragment."""
    return Policy.of(timeout, usual or Policy(), dict(options))


def kept(context: Any) -> Any:
    """Return a copy of *context* that the rest of the page does not change."""
    copied = copy(context)
    copied.dicts = [dict(each) for each in context.dicts]
    return copied


def number(value: Any) -> Any:
    """Return the number in a text, or *value* itself."""
    with suppress(TypeError, ValueError):
        return value if not isinstance(value, str) else int(value)
    with suppress(TypeError, ValueError):
        return float(value)
    return value
