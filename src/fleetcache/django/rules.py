"""The arguments of `cache_page`, and what follows from them for a response; what is said of a wrong one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, TypeAlias

from django.conf import settings
from django.core.cache import DEFAULT_CACHE_ALIAS
from django.utils.cache import get_max_age

from fleetcache.kinds import nearest
from fleetcache.marks import DEFAULT_TIMEOUT, Timeout
from fleetcache.policy import MEANT, Policy

Tags: TypeAlias = Iterable[str] | Callable[..., Iterable[str] | Awaitable[Iterable[str]]]

OPTIONS = {each.name for each in fields(Policy)} | {"cache", "key_prefix", "tags", "headers", "vary_on_user"}
"""The names of the arguments of `cache_page`."""


def unknown(name: str, known: Collection[str]) -> str:
    """Return the message about an option *name* that is not among *known*."""
    meant = name if name in known else MEANT.get(name, name)
    return f"unknown option {name!r}.{nearest(meant, known)} There are {', '.join(sorted(known))}"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The arguments of `cache_page`."""

    timeout: Timeout | Policy = None
    cache: str | None = None
    key_prefix: str | None = None
    tags: Tags = ()
    headers: bool | None = None
    vary_on_user: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    policies: dict[Any, Policy] = field(default_factory=dict, compare=False, repr=False)
    """The policies that follow, by the settings: making one takes longer than reading a page."""

    def __post_init__(self) -> None:
        """Refuse options that make no sense where the view is decorated, and not in its first request."""
        if callable(self.timeout):
            raise TypeError("write @cache_page() or @cache_page(300) above a view, with parentheses")
        for name in self.options:
            if name not in OPTIONS:
                raise TypeError(f"cache_page: {unknown(name, OPTIONS)}")
        Policy.of(self.timeout, Policy(), self.options)
        if isinstance(self.tags, str):
            raise TypeError(f"cache_page: tags is the text {self.tags!r}; write a list, or a function that returns one")
        if not callable(self.tags):
            object.__setattr__(self, "tags", tuple(self.tags))  # it may be an iterator

    def policy(self, cache: Any) -> Policy:
        """Return the policy of loading calls to *cache*, whose settings have defaults."""
        timeout = settings.CACHE_MIDDLEWARE_SECONDS if self.timeout is None else self.timeout
        usual = cache.settings.options.loading, settings.CACHE_MIDDLEWARE_SECONDS
        found = self.policies.get(usual)
        if found is None:
            found = self.policies[usual] = cache._policy_of(timeout, self.options)
        return found

    @property
    def usual(self) -> Timeout:
        """The timeout of a page, unless its response or its view says otherwise."""
        timeout = self.timeout
        if isinstance(timeout, Policy):
            timeout = timeout.timeout
            return settings.CACHE_MIDDLEWARE_SECONDS if timeout is DEFAULT_TIMEOUT else timeout
        return settings.CACHE_MIDDLEWARE_SECONDS if timeout is None or timeout is DEFAULT_TIMEOUT else timeout

    @property
    def alias(self) -> str:
        """The alias of the cache; as with Django's decorator, the middleware's setting does not count."""
        return self.cache or DEFAULT_CACHE_ALIAS

    @property
    def prefix(self) -> str:
        """The prefix of keys."""
        return self.key_prefix or ""

    @property
    def shows_status(self) -> bool:
        """Whether responses get a ``Cache-Status``."""
        return bool(getattr(settings, "FLEETCACHE_CACHE_STATUS", False) if self.headers is None else self.headers)

    def life(self, response: Any) -> float | None:
        """Return for how many seconds *response* is fresh, None for ever."""
        timeout: Any = self.timeout
        if isinstance(timeout, Policy):
            if timeout.timeout is None:
                return None
            timeout = timeout.timeout
        if isinstance(timeout, timedelta):
            return timeout.total_seconds()
        if timeout is None or timeout is DEFAULT_TIMEOUT:
            said = get_max_age(response)
            return float(settings.CACHE_MIDDLEWARE_SECONDS if said is None else said)
        return float(timeout)

    @property
    def personal(self) -> bool:
        """Whether the tags of a page may depend on more than its URL."""
        return callable(self.tags) or any("{request" in tag for tag in self.tags)

    def tags_of(self, request: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return the tags of the page that a view makes for these arguments, or what has to be awaited for them."""
        return (
            self.tags(request, *args, **kwargs)
            if callable(self.tags)
            else self._filled(self.tags, request, args, kwargs)
        )

    def tags_of_url(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
        """Return those of the tags that every page of this URL has."""
        if callable(self.tags):
            return []
        return self._filled([tag for tag in self.tags if "{request" not in tag], None, args, kwargs)

    def _filled(self, tags: Iterable[str], request: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
        try:
            return [tag.format(*args, request=request, **kwargs) if "{" in tag else tag for tag in tags]
        except (LookupError, AttributeError) as error:
            known = ", ".join(["request", *kwargs])
            raise ValueError(
                f"cache_page: {error!r} in the tags {self.tags!r}; this view was called with {known}"
            ) from error
