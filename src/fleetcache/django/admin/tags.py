"""Tags: which are in use, and their invalidation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fleetcache import commands as c
from fleetcache.django.admin import showing
from fleetcache.django.admin.asking import TROUBLE
from fleetcache.django.admin.found import look
from fleetcache.django.admin.site import DELETE, Page
from fleetcache.errors import SettingsError
from fleetcache.exchange.contract import Command, Reply
from fleetcache.inspection.blame import blamed
from fleetcache.inspection.names import Wanted, shown
from fleetcache.keys import TAG, CacheKey, default_key_function, escaped


class Tag(NamedTuple):
    """A tag that has a version."""

    tag: str
    version: str
    """Of its entries, as in `cache.set(…, version=)`."""
    value: str
    """The version of the tag: 8 random bytes."""
    left: str


class Tags(Page):
    """A row for each tag, and a form to invalidate one."""

    slug = "tags"
    title = "Tags"
    template = "admin/fleetcache/tags.html"
    acts = {"invalidate": DELETE}  # noqa: RUF012 - ClassVar in the base

    def context(self, request: Any, alias: str, cache: Any) -> dict[str, Any]:
        """Return the tags whose versions one walk finds."""
        # Rows of masked tags would tell them letter by letter to whoever may search.
        q = request.GET.get("q", "")[:200] if self.sees_keys(request) else ""
        try:
            with blamed(cache):
                pattern = self._pattern(cache, q)
            found = look(
                cache,
                Wanted(cache, pattern, None, library=True),
                request.GET.get("cursor") or None,
                _commands,
                lambda name, replies: _row(cache, name, replies),
            )
        except SettingsError as error:
            return {"wrong": f"No pattern finds the tags of this cache: {self.failure(request, error)}"}
        tags = sorted(found.rows)
        return {
            "found": found,
            "tags": [(self.key(request, tag.tag), tag) for tag in tags],
            "q": q,
            "onward": self.url(cache=alias, q=q, cursor=found.cursor) if found.cursor else "",
            "own": str(cache.version),
        }

    def _pattern(self, cache: Any, part: str) -> CacheKey:
        """Return the glob of the names of tags that contain *part*."""
        key = f"{TAG}*{escaped(part)}*" if part else f"{TAG}*"
        if cache._namer is default_key_function:
            return CacheKey(f"{escaped(cache.key_prefix)}:*:{key}")
        return CacheKey(cache.make_pattern(key))

    def act_invalidate(self, request: Any, alias: str, cache: Any) -> Any:
        """Invalidate the tag in ``tag``, after a confirmation."""
        tag, version = request.POST.get("tag", ""), request.POST.get("version", "")
        if not tag:
            self.tell(request, "Name a tag.", level="error")
            return None
        sentence = f"Give up every entry of {alias} that has the tag {tag}?"
        text = "They are loaded anew when they are asked for next, which may be much work for the database behind them."
        if not self.confirmed(request):
            return self.confirm(request, alias, sentence, text, button="Invalidate")
        try:
            with blamed(cache):
                used = cache.strict.invalidate_tags(tag, version=version or None)
        except (*TROUBLE, ValueError, TypeError) as error:
            self.tell(request, f"The tag {tag} was not invalidated: {self.failure(request, error)}", level="error")
            return None
        self.note(request, alias, f"Invalidated the tag {tag}" + (f" of version {version}" if version else ""))
        self.tell(request, f"The tag {tag} was invalidated." if used else f"The tag {tag} was not in use.")
        return None


def _commands(name: bytes) -> Sequence[Command]:
    return (c.GET_NOW, name), (c.PTTL_NOW, name)


def _row(cache: Any, name: bytes, replies: Sequence[Reply]) -> Tag | None:
    value, left = replies
    if not cache._is_tag(name) or type(value) is not bytes:
        return None
    before, _, tag = shown(name).partition(TAG)
    version = before.removeprefix(f"{cache.key_prefix}:").rstrip(":") if cache._namer is default_key_function else ""
    life = "for ever" if left == -1 else showing.seconds(left / 1000) if type(left) is int else showing.NONE
    return Tag(tag, version, value.hex(), life)
